# OV-Stitcher, OpenAI ViT-B/16, Cityscapes (19 classes). Not run here.
# No published number for this row.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/cityscapes_sclip.py",
    "../_base_/models/ov_stitcher_vitb16.py",
]
model = dict(
    masks=dict(root="data/masks/sam2/cityscapes"),
    decode_head=dict(vocabulary="corrclip_cityscapes"),
    test_cfg=dict(crop_size=(224, 224)),
)
