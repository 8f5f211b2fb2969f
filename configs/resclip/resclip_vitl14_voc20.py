# ResCLIP, OpenAI ViT-L/14, PASCAL VOC 2012 without background (20 classes). Not run here.
# Published: 85.5 mIoU (ResCLIP's tables, with its second pass).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc20_sclip.py",
    "../_base_/models/resclip_vitl14.py",
]
model = dict(
    backbone=dict(readout=dict(attention=dict(kk=0.8, layers=1.2))),
    decode_head=dict(vocabulary="sclip_voc20"),
    test_cfg=dict(mode="whole"),
)
