# DCLIP, CLIP RN101, PASCAL VOC 2007. Not run here.
# Published: 95.4 mAP (DCLIP, arXiv 2502.02977 v4, table of backbones).
# P 85.6 (Table 1). Re-implementations from the paper reached 94.2 mAP.
_base_ = [
    "../_base_/datasets/voc2007_multilabel.py",
    "../_base_/models/dclip_rn101.py",
    "../_base_/schedules/dclip_50e.py",
]
