# SigLIP 2 ViT-B/16 at 512 px with MaskCLIP's readout,
# PASCAL Context without background (59 classes). Not run here.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context59.py",
    "../_base_/models/siglip2_vitb16.py",
]
model = dict(backbone=dict(readout="maskclip"), decode_head=dict(vocabulary="context59"))
