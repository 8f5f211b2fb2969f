# CLIP RN101 on whole images and on the segments DCLIP finds, PASCAL VOC 2007. Not run here.
# Published: 80.71 mAP (DCLIP, arXiv 2502.02977 v4, Table 5); CLIP on whole images 78.73.
# How crops are cut and scores are put together is not published: here the boxes of all regions
# of 1 % of the image or more, and the largest score. reduce="mean", grey=True: other choices.
_base_ = [
    "../_base_/mmengine_runtime.py",
    "../_base_/datasets/voc2007_multilabel.py",
    "../_base_/models/clip_recognizer_rn101.py",
]
model = dict(
    segments=dict(
        projector="work_dirs/dclip_rn101_coco14/epoch_50.pth",
        size=448,
        crop_size=224,
        min_area=0.01,
        reduce="max",
    )
)
