# NACLIP with ViT-L/14 under the protocol of naclip_vitb16.py (its patches are smaller, sigma is 5
# of them all the same).
_base_ = "naclip_vitb16.py"
clip = dict(arch="ViT-L-14-quickgelu")
model = dict(backbone=clip, decode_head=dict(text_encoder=clip))
