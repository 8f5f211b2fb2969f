# ResCLIP, OpenAI ViT-B/16, PASCAL VOC 2012 without background (20 classes). Not run here.
# Published: 86.0 mIoU (ResCLIP's tables, with its second pass).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc20_sclip.py",
    "../_base_/models/resclip_vitb16.py",
]
model = dict(
    backbone=dict(readout=dict(attention=dict(kk=0.8, layers=1.2))),
    decode_head=dict(vocabulary="sclip_voc20"),
    test_cfg=dict(mode="whole"),
)
