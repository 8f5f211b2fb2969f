# NACLIP, OpenAI ViT-L/14, PASCAL VOC 2012 with background (21 classes). Not run here.
# Published: 52.2 mIoU (ResCLIP's tables).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc21_sclip.py",
    "../_base_/models/naclip_vitl14.py",
]
model = dict(
    decode_head=dict(vocabulary="sclip_voc21", prob_thd=0.1),
    test_cfg=dict(mode="whole"),
)
