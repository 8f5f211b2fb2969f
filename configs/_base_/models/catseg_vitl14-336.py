# CAT-Seg on OpenAI's CLIP ViT-L/14 at 336 px: crops of 384 px are shrunk to 336, a 24 x 24 grid.
_base_ = ["./catseg_vitb16.py"]

clip = dict(arch="ViT-L-14-336-quickgelu")
model = dict(
    image_encoder=dict(**clip),
    text_encoder=dict(**clip),
    clip_size=(336, 336),
    guidance_indices=(7, 15),
)
