# DCLIP, CLIP ViT-B/32, COCO 2014. Not run here.
# Published: 84.4 mAP (DCLIP, arXiv 2502.02977 v4, table of backbones).
_base_ = [
    "../_base_/datasets/coco14_multilabel.py",
    "../_base_/models/dclip_vitb32.py",
    "../_base_/schedules/dclip_50e.py",
]
