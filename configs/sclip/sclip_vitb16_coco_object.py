# SCLIP, OpenAI ViT-B/16, COCO-Object (80 things and background). Not run here.
# Published: 30.5 mIoU (SCLIP paper), 33.52 (its code, same protocol).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_object_sclip.py",
    "../_base_/models/sclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="sclip_coco_object", logit_scale=50.0, prob_thd=0.1))
