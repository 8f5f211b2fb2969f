# SCLIP, OpenAI ViT-L/14, COCO-Object (80 things and background). Not run here.
# No published number for this backbone with background.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_object_sclip.py",
    "../_base_/models/sclip_vitl14.py",
]
model = dict(decode_head=dict(vocabulary="sclip_coco_object", logit_scale=50.0, prob_thd=0.1))
