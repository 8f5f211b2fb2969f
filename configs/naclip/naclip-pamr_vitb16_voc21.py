# NACLIP with PAMR, OpenAI ViT-B/16, PASCAL VOC 2012 with background (21 classes). Not run here.
# Published: 64.07 mIoU (README of its code).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc21_sclip.py",
    "../_base_/models/naclip_pamr_vitb16.py",
]
model = dict(
    decode_head=dict(vocabulary="sclip_voc21", prob_thd=0.1),
    test_cfg=dict(mode="whole"),
)
