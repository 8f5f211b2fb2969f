"""Boxes of things that nobody named: a file of them is merged into the training images.

The file of OV-DQUO is a flat json list of records: ``image_id``, ``bbox`` (x, y, width, height in
pixels), ``category_id`` -1, ``pseudo`` 1, and ``weight``, how surely this is a thing (0..1).
``tools/dataset_converters/pseudo_boxes.py`` makes one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmclipdis.engine.data_check import steps_of
from mmclipdis.utils.coco_boxes import is_box
from mmclipdis.utils.coco_json import read_json, short
from mmclipdis.utils.unknown_boxes import UNKNOWN, label_of, labels_and_weights

Floats = NDArray[np.float64]
#: Says, in an item of a data list, that pseudo boxes belong to these data.
MARK = "has_pseudo_boxes"
_TOOL = "tools/dataset_converters/pseudo_boxes.py"
#: Transforms that look into a table of classes for each label, or for the mask of each box.
_BY_CLASS = ("RandomSamplingNegPos", "LoadTextAnnotations", "InstaBoost")


@dataclass
class Merged:
    """How many boxes were merged into how many images, and how many were not, by reason."""

    boxes: int = 0
    images: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def dropped_lines(self) -> list[str]:
        """Which boxes do not count, a line for each reason."""
        return [
            f"{number:,} do not count: they {why} (the first: {self.first[why]})"
            for why, number in self.dropped.items()
        ]


def read_pseudo_boxes(path: str) -> tuple[list[Any], Floats, Floats]:
    """Image ids, boxes (n, 4) as x0, y0, x1, y1 in pixels, and weights (n,) of a file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no such file, or a record is none; names the first and counts all.
    """
    records = read_json(path, f"make it with {_TOOL}, or set pseudo_boxes")
    if not isinstance(records, list):
        raise ValueError(
            f"{path} is no file of pseudo boxes: it holds a {type(records).__name__} instead of a "
            f"list of records; make one with {_TOOL}"
        )
    if not records:
        raise ValueError(f"{path} holds no pseudo box; make another, or leave pseudo_boxes out")
    _check_keys(records, path)
    _check_values(records, path)
    boxes = np.array([record["bbox"] for record in records], dtype=np.float64)
    boxes[:, 2:] += boxes[:, :2]
    weights = np.array([record["weight"] for record in records], dtype=np.float64)
    return [record["image_id"] for record in records], boxes, weights


def _check_keys(records: Sequence[Any], path: str) -> None:
    for place, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise ValueError(f"{path}: record {place} is {short(record)}, no dict")
        lacking = [key for key in ("image_id", "bbox", "weight") if key not in record]
        if lacking == ["weight"] and "score" in record:
            raise ValueError(
                f"{path}: record {place} has a score and no weight, as results of COCO have: make "
                f"pseudo boxes of them with {_TOOL} --proposals {path}"
            )
        if lacking:
            raise ValueError(
                f"{path}: record {place} has no {' and no '.join(lacking)}; a record has image_id, "
                f"bbox, category_id -1, pseudo 1 and weight ({_TOOL} makes such files)"
            )


def _check_values(records: Sequence[Mapping[str, Any]], path: str) -> None:
    known = [
        ("image_id", "an id", _is_id),
        ("bbox", "x, y, width, height as four finite numbers", is_box),
        ("weight", "a number from 0 to 1", _is_weight),
    ]
    for key, what, right in known:
        wrong = [place for place, record in enumerate(records) if not right(record[key])]
        if wrong:
            raise ValueError(
                f"{path}: record {wrong[0]} has the {key} {short(records[wrong[0]][key])}, which "
                f"is not {what} ({len(wrong):,} of {len(records):,} records); repair or remove them"
            )
    for key, value in (("category_id", -1), ("pseudo", 1)):
        wrong = [place for place, record in enumerate(records) if record.get(key, value) != value]
        if wrong:
            raise ValueError(
                f"{path}: record {wrong[0]} has {key} {short(records[wrong[0]][key])}; that of a "
                f"pseudo box is {value} ({len(wrong):,} of {len(records):,} records have another): "
                "boxes of known classes belong into ann_file"
            )


def _is_id(value: Any) -> bool:
    return isinstance(value, Hashable) and value is not None and not isinstance(value, bool)


def _is_weight(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def merge_pseudo_boxes(images: Sequence[dict[str, Any]], path: str, ann_file: str) -> Merged:
    """Add the boxes of a file to ``instances`` of a data list, in place.

    A box that is partly outside of its image is clipped. Images that the file does not name get no
    box; all are marked.

    Args:
        images: Dicts with ``img_id``, ``width``, ``height`` (px) and ``instances``.
        path: Of the file.
        ann_file: Where the images come from, for the messages.

    Returns:
        What was merged, and what was not.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_pseudo_boxes`; the file belongs to other data,
            or none of its boxes can be used.
    """
    ids, boxes, weights = read_pseudo_boxes(path)
    by_id: dict[Any, dict[str, Any]] = {image["img_id"]: image for image in images}
    _check_same_data(ids, by_id, path, ann_file)
    merged = Merged()
    taken: set[tuple[Any, ...]] = set()
    touched = set()
    for image in images:
        image[MARK] = True
    for place, (number, box, weight) in enumerate(zip(ids, boxes.tolist(), weights.tolist())):
        owner = by_id.get(number)
        clipped, why = _clipped(box, owner)
        if not why and (number, *clipped) in taken:
            why = "are boxes that an earlier record has"
        if owner is None or why:
            merged.dropped[why] += 1
            merged.first.setdefault(why, f"record {place}, image {short(number)}")
            continue
        owner["instances"].append(
            {"ignore_flag": 0, "bbox": clipped, "bbox_label": label_of(weight)}
        )
        taken.add((number, *clipped))
        touched.add(number)
        merged.boxes += 1
    merged.images = len(touched)
    if not merged.boxes:
        reasons = ", ".join(f"{number:,} {why}" for why, number in merged.dropped.items())
        raise ValueError(
            f"{path}: none of its {len(ids):,} pseudo boxes can be used with {ann_file!r}: "
            f"{reasons}; make the file anew with {_TOOL}"
        )
    return merged


def _clipped(box: Sequence[float], image: Mapping[str, Any] | None) -> tuple[list[float], str]:
    """The part of a box that is inside of its image, and why it cannot be used, or ``''``."""
    if image is None:
        return [], "are of images that the data do not have"
    x0, y0 = max(box[0], 0.0), max(box[1], 0.0)
    x1, y1 = min(box[2], image["width"]), min(box[3], image["height"])
    if min(box[2] - box[0], box[3] - box[1]) < 1:
        return [], "are less than a pixel wide or high"
    if min(x1 - x0, y1 - y0) < 1:
        return [], "are outside of their image"
    return [x0, y0, x1, y1], ""


def _check_same_data(ids: Sequence[Any], known: Mapping[Any, Any], path: str, source: str) -> None:
    """A file of more images than the data have is right, one of others is not."""
    listed = set(ids)
    unknown = listed - known.keys()
    named = len(listed) - len(unknown)
    if 2 * len(unknown) > len(listed) and 2 * named < len(known):
        first = next(number for number in ids if number in unknown)
        raise ValueError(
            f"{path} belongs to other data than {source!r}: {len(unknown):,} of the "
            f"{len(listed):,} images that it has boxes of are not in there (the first: image "
            f"{short(first)}); name the file of these data, or make one with {_TOOL}"
        )


def check_pipeline(steps: Any) -> None:
    """Refuse transforms that need of each box what pseudo boxes do not have.

    Raises:
        ValueError: ``with_mask=True``, or a transform that looks up classes.
    """
    for step in steps_of(steps):
        if getattr(step, "with_mask", False):
            raise ValueError(
                f"pseudo boxes have no masks, and {type(step).__name__} loads masks: set "
                "with_mask=False in train_pipeline, or leave pseudo_boxes out"
            )
        if type(step).__name__ in _BY_CLASS:
            raise ValueError(
                f"pseudo boxes have neither class nor mask, which {type(step).__name__} needs: "
                "take it out of train_pipeline, or leave pseudo_boxes out"
            )


def is_coded(sample: Any) -> bool:
    """Whether a data sample has labels of pseudo boxes as they are in a pipeline.

    One with the weight 0 alone looks as what a model gets, and is told by :data:`MARK` only.
    """
    boxes = sample.gt_instances
    return "labels" in boxes and bool((boxes.labels < UNKNOWN).any())


def unpack(sample: Any) -> None:
    """Give the boxes of a data sample their ``weights``, and pseudo boxes the label -1.

    What has been unpacked is left as it is.
    """
    boxes = sample.gt_instances
    if "labels" in boxes and "weights" not in boxes:
        boxes.labels, boxes.weights = labels_and_weights(boxes.labels)
