# DeCLIP, EVA02-CLIP ViT-B/16, COCO-Stuff 164k (171 classes). Not run here.
# Published: 25.3 mIoU (DeCLIP, CVPR 2025, tables 5 and 10).
# Class names: the list of ClearCLIP.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_stuff164k_declip.py",
    "../_base_/models/declip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="coco_stuff164k"))
