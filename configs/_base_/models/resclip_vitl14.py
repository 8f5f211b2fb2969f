# ResCLIP's first part with ViT-L/14: blocks 5 to 8 of this tower, too, as its code has it.
_base_ = "resclip_vitb16.py"
clip = dict(arch="ViT-L-14-quickgelu")
model = dict(backbone=clip, decode_head=dict(text_encoder=clip))
