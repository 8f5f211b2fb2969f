# DeCLIP, EVA02-CLIP ViT-B/16, PASCAL VOC 2012 without background (20 classes). Not run here.
# Published: 85.0 mIoU (DeCLIP, CVPR 2025, tables 5 and 10).
# Class names: the list of SCLIP.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc20_declip.py",
    "../_base_/models/declip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="sclip_voc20"))
