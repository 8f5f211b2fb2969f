"""Distilling CLIP: models, teachers, region features."""
