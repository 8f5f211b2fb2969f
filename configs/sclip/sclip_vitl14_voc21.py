# SCLIP, OpenAI ViT-L/14, PASCAL VOC 2012 with background (21 classes). Not run here.
# No published number for this backbone with background.
# Classes that fill at most a tenth of the foreground are dropped (area_thd).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc21_sclip.py",
    "../_base_/models/sclip_vitl14.py",
]
model = dict(
    decode_head=dict(vocabulary="sclip_voc21", logit_scale=65.0, prob_thd=0.1, area_thd=0.1)
)
