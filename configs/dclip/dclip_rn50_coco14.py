# DCLIP, CLIP RN50, COCO 2014. Not run here.
# Published: 83.2 mAP (DCLIP, arXiv 2502.02977 v4, table of backbones).
_base_ = [
    "../_base_/datasets/coco14_multilabel.py",
    "../_base_/models/dclip_rn50.py",
    "../_base_/schedules/dclip_50e.py",
]
