# MobileCLIP-B with ClearCLIP's readout, Cityscapes (19 classes). Not run here.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/cityscapes.py",
    "../_base_/models/mobileclip_vitb16.py",
]
model = dict(backbone=dict(readout="clearclip"), decode_head=dict(vocabulary="cityscapes"))
