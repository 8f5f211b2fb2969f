"""CLIP itself: towers, readouts, positions, weights, text. Imports no mm package."""
