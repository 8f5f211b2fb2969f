# NACLIP, OpenAI ViT-B/16, COCO-Object (80 things and background). Not run here.
# Published: 33.2 mIoU (Trident's and ResCLIP's tables).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_object_sclip.py",
    "../_base_/models/naclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="sclip_coco_object", prob_thd=0.1))
