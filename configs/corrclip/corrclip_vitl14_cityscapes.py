# CorrCLIP, MetaCLIP ViT-L/14, Cityscapes (19 classes). Not run here.
# Published: 51.1 mIoU (README of its code, masks of SAM 2).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/cityscapes.py",
    "../_base_/models/corrclip_vitl14.py",
]
model = dict(
    masks=dict(root="data/masks/sam2/cityscapes"),
    decode_head=dict(vocabulary="corrclip_cityscapes"),
    test_cfg=dict(crop_size=(224, 224)),
)
