# TIPSv2 ViT-B/14 without a change of its last block, Cityscapes (19 classes). Not run here.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/cityscapes.py",
    "../_base_/models/tips_vitb14.py",
]
model = dict(backbone=dict(readout="vanilla"), decode_head=dict(vocabulary="cityscapes"))
