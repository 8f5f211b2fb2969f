# OV-Stitcher, OpenAI ViT-B/16, PASCAL Context (59 classes). Not run here.
# No published number for this row.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context59.py",
    "../_base_/models/ov_stitcher_vitb16.py",
]
model = dict(
    masks=dict(root="data/masks/sam2/context"),
    decode_head=dict(vocabulary="corrclip_context59"),
)
