"""Which classes an image shows: DCLIP, and CLIP as it is."""
