"""CLIP itself: towers, readouts, positions, weights, text. Imports torch and open_clip, never mm*."""
