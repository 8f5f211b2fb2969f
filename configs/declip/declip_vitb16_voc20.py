# DeCLIP, EVA02-CLIP ViT-B/16, PASCAL VOC 2012 without background (20 classes). Not run here.
# Published: 85.0 mIoU (DeCLIP, CVPR 2025, tables 5 and 10).
# Class names: the list of ProxyCLIP, which is ClearCLIP's.
# Inferred: the released reader splits class files at "; ", which is the format of ProxyCLIP's lists
# and not of SCLIP's; the paper names none.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc20_declip.py",
    "../_base_/models/declip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="voc20"))
