# TIPSv2 ViT-B/14, ADE20K (150 classes). Not run here.
# Published: 17.4 mIoU (README of TIPS' code).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/models/tips_vitb14.py",
]
model = dict(decode_head=dict(vocabulary="ade20k"))
