# DeCLIP, EVA02-CLIP ViT-B/16, Cityscapes (19 classes). Not run here.
# Published: 32.8 mIoU (DeCLIP, CVPR 2025, tables 5 and 10).
# The short side of 560 px is that of the released code, and not of the paper.
# Class names: the list of ClearCLIP.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/cityscapes_declip.py",
    "../_base_/models/declip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="cityscapes"))
