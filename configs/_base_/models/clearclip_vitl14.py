# ClearCLIP: query-query attention in the last block, no residual, no FFN.
_base_ = "clip_vitl14.py"
model = dict(backbone=dict(type="ClearCLIPViT"))
