# DeCLIP, EVA02-CLIP ViT-B/16, ADE20K (150 classes). Not run here.
# Published: 21.9 mIoU (DeCLIP, CVPR 2025, tables 5 and 10).
# A user of the released checkpoint measured 20.09. Class names: the list of ClearCLIP.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/ade20k_declip.py",
    "../_base_/models/declip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="ade20k"))
