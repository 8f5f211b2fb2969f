# DeCLIP, EVA02-CLIP ViT-B/16, PASCAL Context with background (60 classes). Not run here.
# Published: 35.3 mIoU (DeCLIP, CVPR 2025, tables 5 and 10).
# Class names: the list of ClearCLIP.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context60_declip.py",
    "../_base_/models/declip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="context60", prob_thd=0.15))
