"""CAT-Seg: cost aggregation between image and class names."""
