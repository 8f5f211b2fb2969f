# MaskCLIP: the values of the last block for every patch, residual and FFN kept. Positions are
# resampled to the "size", as its official code does; the rest of the protocol is ClearCLIP's.
_base_ = "clip_vitb16.py"
model = dict(backbone=dict(type="MaskCLIPViT"))
