# ResCLIP, OpenAI ViT-L/14, COCO-Object (80 things and background). Not run here.
# Published: 32.5 mIoU (ResCLIP's tables, with its second pass).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_object_sclip.py",
    "../_base_/models/resclip_vitl14.py",
]
model = dict(
    backbone=dict(readout=dict(attention=dict(kk=1.2, layers=0.8))),
    decode_head=dict(vocabulary="sclip_coco_object", prob_thd=0.1),
)
