# dino.txt on DINOv3 ViT-L/16, COCO-Stuff 164k (171 classes). Not run here.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_stuff164k_dinotxt.py",
    "../_base_/models/dinotxt_vitl16.py",
]
model = dict(decode_head=dict(vocabulary="coco_stuff164k"))
