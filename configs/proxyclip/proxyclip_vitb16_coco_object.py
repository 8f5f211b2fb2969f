# ProxyCLIP, OpenAI ViT-B/16, COCO-Object (80 things and background). Not run here.
# Published: 37.5 mIoU (Trident's table).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_object_sclip.py",
    "../_base_/models/proxyclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="proxyclip_coco_object", prob_thd=0.25))
