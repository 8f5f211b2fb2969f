# ClearCLIP: query-query attention in the last block, no residual, no FFN.
_base_ = "clip_vitb16.py"
model = dict(backbone=dict(type="ClearCLIPViT"))
