# OV-Stitcher, OpenAI ViT-B/16, PASCAL VOC 2012 without background (20 classes). Not run here.
# No published number for this row.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc20.py",
    "../_base_/models/ov_stitcher_vitb16.py",
]
model = dict(
    masks=dict(root="data/masks/sam2/voc"),
    decode_head=dict(vocabulary="corrclip_voc20"),
)
