# CorrCLIP, MetaCLIP ViT-B/16, PASCAL Context (59 classes). Not run here.
# Published: 48.8 mIoU (README of its code, masks of SAM 2).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context59_sclip.py",
    "../_base_/models/corrclip_vitb16.py",
]
model = dict(
    masks=dict(root="data/masks/sam2/context"),
    decode_head=dict(vocabulary="corrclip_context59"),
)
