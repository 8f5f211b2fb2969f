# SigLIP 2 ViT-B/16 at 512 px with MaskCLIP's readout, Cityscapes (19 classes). Not run here.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/cityscapes.py",
    "../_base_/models/siglip2_vitb16.py",
]
model = dict(backbone=dict(readout="maskclip"), decode_head=dict(vocabulary="cityscapes"))
