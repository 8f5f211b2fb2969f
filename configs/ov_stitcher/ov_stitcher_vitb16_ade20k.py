# OV-Stitcher, OpenAI ViT-B/16, ADE20K (150 classes). Not run here.
# No published number for this row.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/models/ov_stitcher_vitb16.py",
]
model = dict(
    masks=dict(root="data/masks/sam2/ade20k"),
    decode_head=dict(vocabulary="corrclip_ade20k"),
)
