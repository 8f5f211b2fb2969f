# CorrCLIP, MetaCLIP ViT-B/16, COCO-Stuff 164k (171 classes). Not run here.
# Published: 31.6 mIoU (README of its code, masks of SAM 2).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_stuff164k_naclip.py",
    "../_base_/models/corrclip_vitb16.py",
]
model = dict(
    masks=dict(root="data/masks/sam2/coco"),
    decode_head=dict(vocabulary="corrclip_coco_stuff164k"),
)
