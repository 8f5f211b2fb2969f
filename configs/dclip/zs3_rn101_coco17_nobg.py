# DCLIP's projectors, CLIP RN101, COCO-Object without background: 80 things. Not run here.
# Published: 37.8 mIoU (DCLIP, arXiv 2502.02977 v4); CLIP 5.6, CLIPSurgery 22.9, CLIP-VV 35.5.
# The table does not say which backbone.
# The authors' scripts average an IoU of each image, background ignored (docs/dclip.md); here it is
# the usual mIoU, so expect other numbers.
# CLIP-VV: --cfg-options model.decode_head.projector=None
# A class that is not listed is ignored, and so is the background.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_object.py",
    "../_base_/models/dclip_zs3_rn101.py",
]
classes = [
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant",
    "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
]  # fmt: skip
things = dict(dataset=dict(metainfo=dict(classes=classes), **_base_.zs3_dataset.dataset))
test_pipeline = _base_.zs3_pipeline
val_dataloader = things
test_dataloader = things
