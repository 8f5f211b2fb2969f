# ClearCLIP: query-query attention in the last block, no residual, no FFN.
_base_ = "clip_vitb16.py"
clip = dict(arch="ViT-L-14-quickgelu")
model = dict(
    backbone=dict(type="ClearCLIPViT", **clip),
    decode_head=dict(text_encoder=clip),
)
