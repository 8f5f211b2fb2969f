# DCLIP, CLIP RN50, PASCAL VOC 2007. Not run here.
# Published: 94.4 mAP (DCLIP, arXiv 2502.02977 v4, table of backbones).
_base_ = [
    "../_base_/datasets/voc2007_multilabel.py",
    "../_base_/models/dclip_rn50.py",
    "../_base_/schedules/dclip_50e.py",
]
