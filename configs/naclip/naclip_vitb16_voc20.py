# NACLIP, OpenAI ViT-B/16, PASCAL VOC 2012 without background (20 classes). Not run here.
# Published: 79.7 mIoU (Trident's and ResCLIP's tables).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc20_sclip.py",
    "../_base_/models/naclip_vitb16.py",
]
model = dict(
    decode_head=dict(vocabulary="sclip_voc20"),
    test_cfg=dict(mode="whole"),
)
