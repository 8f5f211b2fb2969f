# NACLIP, OpenAI ViT-L/14, PASCAL VOC 2012 without background (20 classes). Not run here.
# Published: 78.7 mIoU (ResCLIP's tables).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc20_sclip.py",
    "../_base_/models/naclip_vitl14.py",
]
model = dict(
    decode_head=dict(vocabulary="sclip_voc20"),
    test_cfg=dict(mode="whole"),
)
