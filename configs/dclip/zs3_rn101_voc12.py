# DCLIP's projectors, CLIP RN101, PASCAL VOC 2012 with background (21 classes). Not run here.
# Published: 36.0 mIoU (DCLIP, arXiv 2502.02977 v4); CLIP 14.1, CLIPSurgery 17.5, CLIP-VV 32.6.
# The table does not say which backbone.
# The authors' scripts average an IoU of each image, background ignored (docs/dclip.md); here it is
# the usual mIoU, so expect other numbers.
# Background where no class has a probability of 0.85; the right value depends on the classes.
# CLIP-VV: --cfg-options model.decode_head.projector=None
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc21.py",
    "../_base_/models/dclip_zs3_rn101.py",
]
vocabulary = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa",
    "train", "tv/monitor",
]  # fmt: skip
model = dict(decode_head=dict(vocabulary=vocabulary, background="threshold", prob_thd=0.85))
test_pipeline = _base_.zs3_pipeline
val_dataloader = _base_.zs3_dataset
test_dataloader = _base_.zs3_dataset
