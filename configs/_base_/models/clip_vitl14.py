# CLIP ViT-L/14 under the protocol of clip_vitb16.py.
_base_ = "clip_vitb16.py"
clip = dict(arch="ViT-L-14-quickgelu")
model = dict(backbone=clip, decode_head=dict(text_encoder=clip))
