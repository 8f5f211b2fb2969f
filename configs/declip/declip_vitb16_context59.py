# DeCLIP, EVA02-CLIP ViT-B/16, PASCAL Context without background (59 classes). Not run here.
# Published: 39.2 mIoU (DeCLIP, CVPR 2025, tables 5 and 10).
# Class names: the list of ClearCLIP.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context59_declip.py",
    "../_base_/models/declip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="context59"))
