# Trident, OpenAI ViT-B/16, COCO-Object (80 things and background). Not run here.
# Published: 41.1 mIoU (its table, with prompts to SAM).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_object_trident.py",
    "../_base_/models/trident_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="proxyclip_coco_object", prob_thd=0.25))
