"""Tests of OV-DQUO."""
