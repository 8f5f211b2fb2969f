# OV-Stitcher, OpenAI ViT-B/16, PASCAL Context with background (60 classes). Not run here.
# No published number for this row.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context60.py",
    "../_base_/models/ov_stitcher_vitb16.py",
]
model = dict(
    masks=dict(root="data/masks/sam2/context"),
    decode_head=dict(vocabulary="corrclip_context60", prob_thd=0.1),
)
