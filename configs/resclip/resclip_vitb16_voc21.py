# ResCLIP, OpenAI ViT-B/16, PASCAL VOC 2012 with background (21 classes). Not run here.
# Published: 61.1 mIoU (ResCLIP's tables, with its second pass).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc21_sclip.py",
    "../_base_/models/resclip_vitb16.py",
]
model = dict(
    backbone=dict(readout=dict(attention=dict(kk=1.4, layers=0.6))),
    decode_head=dict(vocabulary="sclip_voc21", prob_thd=0.1),
    test_cfg=dict(mode="whole"),
)
