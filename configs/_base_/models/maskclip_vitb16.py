# MaskCLIP: the values of the last block for every patch, residual and FFN kept.
_base_ = "clip_vitb16.py"
model = dict(backbone=dict(type="MaskCLIPViT"))
