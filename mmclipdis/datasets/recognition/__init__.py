"""Multi-label data, its transforms, and tokens of a frozen tower kept on disk."""
