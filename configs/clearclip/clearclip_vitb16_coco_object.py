# ClearCLIP, OpenAI ViT-B/16, COCO-Object (80 things and background). Not run here.
# Published: 33.0 mIoU (ClearCLIP paper, its protocol).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_object.py",
    "../_base_/models/clearclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="coco_object", prob_thd=0.4))
