# dino.txt on DINOv3 ViT-L/16, ADE20K (150 classes). Not run here.
# Published: 24.7 mIoU (DINOv3, Table 16, as quoted in issue 64 of its code).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/ade20k_dinotxt.py",
    "../_base_/models/dinotxt_vitl16.py",
]
model = dict(decode_head=dict(vocabulary="ade20k"))
