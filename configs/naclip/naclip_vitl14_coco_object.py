# NACLIP, OpenAI ViT-L/14, COCO-Object (80 things and background). Not run here.
# Published: 29.9 mIoU (ResCLIP's tables).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_object_sclip.py",
    "../_base_/models/naclip_vitl14.py",
]
model = dict(decode_head=dict(vocabulary="sclip_coco_object", prob_thd=0.1))
