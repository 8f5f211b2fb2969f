# dino.txt on DINOv3 ViT-L/16, Cityscapes (19 classes). Not run here.
# Published: 36.9 mIoU (DINOv3, Table 16, as quoted in issue 64 of its code).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/cityscapes_dinotxt.py",
    "../_base_/models/dinotxt_vitl16.py",
]
model = dict(decode_head=dict(vocabulary="cityscapes"))
