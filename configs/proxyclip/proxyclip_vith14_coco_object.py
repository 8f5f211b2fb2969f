# ProxyCLIP, LAION's ViT-H/14, COCO-Object (80 things and background). Not run here.
# Published: 38.6 mIoU (Trident's table).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_object_sclip.py",
    "../_base_/models/proxyclip_vith14.py",
]
model = dict(decode_head=dict(vocabulary="proxyclip_coco_object", prob_thd=0.25))
