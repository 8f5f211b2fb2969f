# OV-Stitcher, OpenAI ViT-B/16, PASCAL VOC 2012 with background (21 classes). Not run here.
# No published number for this row.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc21.py",
    "../_base_/models/ov_stitcher_vitb16.py",
]
model = dict(
    masks=dict(root="data/masks/sam2/voc"),
    decode_head=dict(vocabulary="corrclip_voc21", prob_thd=0.1),
)
