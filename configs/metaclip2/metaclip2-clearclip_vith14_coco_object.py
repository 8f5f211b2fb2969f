# MetaCLIP 2 ViT-H/14 with ClearCLIP's readout,
# COCO-Object (80 things and background). Not run here.
# No threshold of the background is published: 0, tune it on training photos.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_object.py",
    "../_base_/models/metaclip2_vith14.py",
]
model = dict(
    backbone=dict(readout="clearclip"), decode_head=dict(vocabulary="coco_object", prob_thd=0.0)
)
