# MaskCLIP: the values of the last block for every patch, residual and FFN kept. ClearCLIP's paper
# has the published numbers, hence its "legacy" positions; whether its ViT-L/14 rows keep residual
# and FFN is not said there, but is most likely.
_base_ = "clip_vitb16.py"
clip = dict(arch="ViT-L-14-quickgelu")
model = dict(
    backbone=dict(type="MaskCLIPViT", positions="legacy", **clip),
    decode_head=dict(text_encoder=clip),
)
