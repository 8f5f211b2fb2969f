# ProxyCLIP, OpenAI ViT-L/14, COCO-Object (80 things and background). Not run here.
# No published number for this row.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_object_sclip.py",
    "../_base_/models/proxyclip_vitl14.py",
]
model = dict(decode_head=dict(vocabulary="proxyclip_coco_object", prob_thd=0.25))
