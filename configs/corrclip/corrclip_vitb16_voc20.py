# CorrCLIP, MetaCLIP ViT-B/16, PASCAL VOC 2012 without background (20 classes). Not run here.
# Published: 88.8 mIoU (README of its code, masks of SAM 2).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc20_sclip.py",
    "../_base_/models/corrclip_vitb16.py",
]
model = dict(
    masks=dict(root="data/masks/sam2/voc"),
    decode_head=dict(vocabulary="corrclip_voc20"),
)
