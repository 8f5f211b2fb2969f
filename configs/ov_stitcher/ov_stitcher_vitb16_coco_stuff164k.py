# OV-Stitcher, OpenAI ViT-B/16, COCO-Stuff 164k (171 classes). Not run here.
# No published number for this row.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_stuff164k.py",
    "../_base_/models/ov_stitcher_vitb16.py",
]
model = dict(
    masks=dict(root="data/masks/sam2/coco"),
    decode_head=dict(vocabulary="corrclip_coco_stuff164k"),
    test_cfg=dict(stride=(224, 224)),
)
