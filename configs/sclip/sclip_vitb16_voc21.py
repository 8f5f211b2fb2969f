# SCLIP, OpenAI ViT-B/16, PASCAL VOC 2012 with background (21 classes). Not run here.
# Published: 59.1 mIoU (SCLIP paper), 59.63 (its code, same protocol).
# Classes that fill at most a tenth of the foreground are dropped (area_thd).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc21_sclip.py",
    "../_base_/models/sclip_vitb16.py",
]
model = dict(
    decode_head=dict(vocabulary="sclip_voc21", logit_scale=65.0, prob_thd=0.1, area_thd=0.1)
)
