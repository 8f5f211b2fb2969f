"""The classes of OV-COCO: 48 base and 17 novel ones of COCO's 80, and 15 that are not used."""

from __future__ import annotations

#: COCO's 80 names in the official order, that of the category ids.
COCO_CLASSES: tuple[str, ...] = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat"),
    *("dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack"),
    *("umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball"),
    *("kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket"),
    *("bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair"),
    *("couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse"),
    *("remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink"),
    *("refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier"),
    "toothbrush",
)
#: Neither base nor novel: their annotations are left out everywhere.
UNUSED_CLASSES: tuple[str, ...] = (
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "sports ball"),
    *("baseball bat", "baseball glove", "tennis racket", "wine glass", "hot dog"),
    *("potted plant", "dining table", "cell phone", "teddy bear", "hair drier"),
)
#: Never annotated in training.
NOVEL_CLASSES: tuple[str, ...] = (
    *("airplane", "bus", "cat", "dog", "cow", "elephant", "umbrella", "tie", "snowboard"),
    *("skateboard", "cup", "knife", "cake", "couch", "keyboard", "sink", "scissors"),
)
#: The 65 of OV-COCO in the official order; a label is a position in it.
OV_CLASSES: tuple[str, ...] = tuple(name for name in COCO_CLASSES if name not in UNUSED_CLASSES)
#: The 48 annotated in training.
BASE_CLASSES: tuple[str, ...] = tuple(name for name in OV_CLASSES if name not in NOVEL_CLASSES)
