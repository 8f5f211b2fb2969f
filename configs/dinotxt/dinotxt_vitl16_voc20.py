# dino.txt on DINOv3 ViT-L/16, PASCAL VOC 2012 without background (20 classes). Not run here.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc20_dinotxt.py",
    "../_base_/models/dinotxt_vitl16.py",
]
model = dict(decode_head=dict(vocabulary="voc20"))
