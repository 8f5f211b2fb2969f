# TIPSv2 ViT-B/14 without a change of its last block,
# COCO-Object (80 things and background). Not run here.
# No threshold of the background is published: 0, tune it on training photos.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_object.py",
    "../_base_/models/tips_vitb14.py",
]
model = dict(
    backbone=dict(readout="vanilla"), decode_head=dict(vocabulary="coco_object", prob_thd=0.0)
)
