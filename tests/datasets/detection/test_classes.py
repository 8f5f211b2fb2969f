"""OV-COCO's 65 classes: golden positions, and the rule by which they come from COCO's 80."""

from __future__ import annotations

from mmdet.datasets import CocoDataset

from mmclipdis.clip.text.vocabulary import novel_flags
from mmclipdis.datasets.detection.classes import (
    BASE_CLASSES,
    COCO_CLASSES,
    NOVEL_CLASSES,
    OV_CLASSES,
    UNUSED_CLASSES,
)
from mmclipdis.losses.masked_cross_entropy import novel_class_weight

NOVEL_AT = [4, 5, 11, 12, 15, 16, 21, 23, 27, 29, 32, 34, 45, 47, 54, 58, 63]


def test_coco_classes_are_those_of_mmdet() -> None:
    assert CocoDataset.METAINFO["classes"] == COCO_CLASSES


def test_golden_positions() -> None:
    assert (len(OV_CLASSES), len(BASE_CLASSES), len(NOVEL_CLASSES)) == (65, 48, 17)
    assert [OV_CLASSES.index(name) for name in NOVEL_CLASSES] == NOVEL_AT
    assert [OV_CLASSES.index(name) for name in ("car", "dog", "toothbrush")] == [2, 12, 64]
    assert (BASE_CLASSES[0], BASE_CLASSES[19], BASE_CLASSES[-1]) == ("person", "kite", "toothbrush")


def test_the_three_groups_are_coco() -> None:
    groups = BASE_CLASSES + NOVEL_CLASSES + UNUSED_CLASSES
    assert len(groups) == len(set(groups)) == 80
    assert set(groups) == set(COCO_CLASSES)
    assert [name for name in COCO_CLASSES if name in OV_CLASSES] == list(OV_CLASSES)


def test_golden_class_weights_of_the_loss() -> None:
    weight = novel_class_weight(novel_flags(OV_CLASSES, NOVEL_CLASSES), 0.6).tolist()
    assert [i for i, value in enumerate(weight) if value == 0] == NOVEL_AT
    assert len(weight) == 66
    assert round(weight[-1], 6) == 0.6
    assert weight.count(1.0) == 48
