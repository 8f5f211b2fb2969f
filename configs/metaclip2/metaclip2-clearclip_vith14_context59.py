# MetaCLIP 2 ViT-H/14 with ClearCLIP's readout,
# PASCAL Context without background (59 classes). Not run here.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context59.py",
    "../_base_/models/metaclip2_vith14.py",
]
model = dict(backbone=dict(readout="clearclip"), decode_head=dict(vocabulary="context59"))
