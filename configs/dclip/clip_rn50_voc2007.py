# CLIP RN50 as it is on whole images, PASCAL VOC 2007. Not run here.
# Published: 76.20 mAP (DCLIP, arXiv 2502.02977 v4, Table 5), which does not say at what size.
# Images are squeezed to 448 x 448 and then to CLIP's 224 x 224.
_base_ = [
    "../_base_/mmengine_runtime.py",
    "../_base_/datasets/voc2007_multilabel.py",
    "../_base_/models/clip_recognizer_rn50.py",
]
