# MetaCLIP 2 ViT-H/14 with ClearCLIP's readout, ADE20K (150 classes). Not run here.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/models/metaclip2_vith14.py",
]
model = dict(backbone=dict(readout="clearclip"), decode_head=dict(vocabulary="ade20k"))
