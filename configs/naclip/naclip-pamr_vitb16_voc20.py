# NACLIP with PAMR, OpenAI ViT-B/16, PASCAL VOC 2012 without background (20 classes). Not run here.
# Published: 83.03 mIoU (README of its code).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc20_sclip.py",
    "../_base_/models/naclip_pamr_vitb16.py",
]
model = dict(
    decode_head=dict(vocabulary="sclip_voc20"),
    test_cfg=dict(mode="whole"),
)
