# NACLIP, OpenAI ViT-B/16, PASCAL VOC 2012 with background (21 classes). Not run here.
# Published: 58.9 mIoU (Trident's and ResCLIP's tables).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc21_sclip.py",
    "../_base_/models/naclip_vitb16.py",
]
model = dict(
    decode_head=dict(vocabulary="sclip_voc21", prob_thd=0.1),
    test_cfg=dict(mode="whole"),
)
