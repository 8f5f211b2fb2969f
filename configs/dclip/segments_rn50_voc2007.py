# CLIP RN50 on whole images and on the segments DCLIP finds, PASCAL VOC 2007. Not run here.
# Published: 79.87 mAP (DCLIP, arXiv 2502.02977 v4, Table 5); CLIP on whole images 76.20.
# How crops are cut and scores are put together is not published: here the boxes of all regions
# of 1 % of the image or more, and the largest score. reduce="mean", grey=True: other choices.
_base_ = [
    "../_base_/mmengine_runtime.py",
    "../_base_/datasets/voc2007_multilabel.py",
    "../_base_/models/clip_recognizer_rn50.py",
]
model = dict(
    segments=dict(
        projector="work_dirs/dclip_rn50_coco14/epoch_50.pth",
        size=448,
        crop_size=224,
        min_area=0.01,
        reduce="max",
    )
)
