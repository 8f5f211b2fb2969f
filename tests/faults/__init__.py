"""Inputs that are damaged, hostile or mistaken, each with the line it must end in."""
