"""Checkpoint files: reading, layouts, the marks they carry, what of a tower is trained."""
