# CorrCLIP with MetaCLIP ViT-L/14 under the protocol of corrclip_vitb16.py.
_base_ = "corrclip_vitb16.py"
clip = dict(arch="ViT-L-14-quickgelu")
model = dict(backbone=clip, decode_head=dict(text_encoder=clip))
