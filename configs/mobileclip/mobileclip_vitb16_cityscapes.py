# MobileCLIP-B, Cityscapes (19 classes). Not run here.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/cityscapes.py",
    "../_base_/models/mobileclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="cityscapes"))
