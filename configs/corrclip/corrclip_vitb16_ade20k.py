# CorrCLIP, MetaCLIP ViT-B/16, ADE20K (150 classes). Not run here.
# Published: 26.9 mIoU (README of its code, masks of SAM 2).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/models/corrclip_vitb16.py",
]
model = dict(
    masks=dict(root="data/masks/sam2/ade20k"),
    decode_head=dict(vocabulary="corrclip_ade20k"),
)
