# Perception Encoder ViT-B/16 with MaskCLIP's readout, ADE20K (150 classes). Not run here.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/models/pe_vitb16.py",
]
model = dict(backbone=dict(readout="maskclip"), decode_head=dict(vocabulary="ade20k"))
