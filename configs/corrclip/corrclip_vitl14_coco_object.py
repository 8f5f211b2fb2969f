# CorrCLIP, MetaCLIP ViT-L/14, COCO-Object (80 things and background). Not run here.
# Published: 49.4 mIoU (README of its code, masks of SAM 2).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_object_sclip.py",
    "../_base_/models/corrclip_vitl14.py",
]
model = dict(
    masks=dict(root="data/masks/sam2/coco"),
    decode_head=dict(vocabulary="corrclip_coco_object", prob_thd=0.25),
)
