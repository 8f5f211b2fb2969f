# OV-Stitcher, OpenAI ViT-B/16, COCO-Object (80 things and background). Not run here.
# No published number for this row.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_object.py",
    "../_base_/models/ov_stitcher_vitb16.py",
]
model = dict(
    masks=dict(root="data/masks/sam2/coco"),
    decode_head=dict(vocabulary="corrclip_coco_object", prob_thd=0.2),
)
