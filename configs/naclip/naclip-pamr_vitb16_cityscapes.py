# NACLIP with PAMR, OpenAI ViT-B/16, Cityscapes (19 classes). Not run here.
# Published: 38.27 mIoU (README of its code).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/cityscapes_sclip.py",
    "../_base_/models/naclip_pamr_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="cityscapes"))
