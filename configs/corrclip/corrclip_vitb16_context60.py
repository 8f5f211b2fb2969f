# CorrCLIP, MetaCLIP ViT-B/16, PASCAL Context with background (60 classes). Not run here.
# Published: 44.2 mIoU (README of its code, masks of SAM 2).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context60_sclip.py",
    "../_base_/models/corrclip_vitb16.py",
]
model = dict(
    masks=dict(root="data/masks/sam2/context"),
    decode_head=dict(vocabulary="corrclip_context60", prob_thd=0.15),
)
