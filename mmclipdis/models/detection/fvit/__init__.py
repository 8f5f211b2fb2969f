"""F-ViT: a two-stage detector on a frozen CLIP."""
