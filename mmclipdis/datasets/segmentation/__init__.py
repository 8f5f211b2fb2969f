"""Segmentation data: benchmarks, large vocabularies, label maps."""
