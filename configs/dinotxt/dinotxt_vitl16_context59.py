# dino.txt on DINOv3 ViT-L/16, PASCAL Context without background (59 classes). Not run here.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context59_dinotxt.py",
    "../_base_/models/dinotxt_vitl16.py",
]
model = dict(decode_head=dict(vocabulary="context59"))
