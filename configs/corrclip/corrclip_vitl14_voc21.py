# CorrCLIP, MetaCLIP ViT-L/14, PASCAL VOC 2012 with background (21 classes). Not run here.
# Published: 76.7 mIoU (README of its code, masks of SAM 2).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc21_sclip.py",
    "../_base_/models/corrclip_vitl14.py",
]
model = dict(
    masks=dict(root="data/masks/sam2/voc"),
    decode_head=dict(vocabulary="corrclip_voc21", prob_thd=0.2),
)
