"""Label maps and the list of classes: do they meet?

A few label maps are read before the first iteration, as the data set's own pipeline reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce

from mmclipdis.engine.data_check import label_steps, some, steps_of
from mmclipdis.utils.photo_sizes import orientation, size_problem
from mmclipdis.utils.pictures import open_picture

#: Label maps that are read at the start, evenly spread over the data set.
LOOKED_AT = 48
#: Photos that are decoded as well, to compare sizes.
_PHOTOS = 4


@dataclass
class LabelCounts:
    """Pixels of each class in the label maps that were read.

    Attributes:
        classes: Names of the classes that labels can name.
        ignore_index: The label without class.
        pixels: (C,) of each class.
        ignored: Pixels with ``ignore_index``.
        maps: Label maps that were read.
        of: Label maps of the data set.
    """

    classes: list[str]
    ignore_index: int
    pixels: np.ndarray = field(init=False)
    ignored: int = 0
    maps: int = 0
    of: int = 0

    def __post_init__(self) -> None:
        self.pixels = np.zeros(len(self.classes), dtype=np.int64)

    def add(self, labels: np.ndarray, path: str) -> None:
        """Count one label map (H, W).

        Raises:
            ValueError: It holds what is neither a class nor ignored, or is no map of one number
                a pixel.
        """
        labels = np.atleast_2d(labels)  # mmseg makes (W,) of a map of one row
        if labels.ndim != 2 or labels.dtype.kind not in "bui":
            raise ValueError(
                f"label map {path} has {labels.shape} values of {labels.dtype}, as a coloured "
                "picture; labels are one whole number a pixel: load it with "
                "LoadReadableAnnotations, a coloured one with its palette=[[red, green, blue], ...]"
            )
        values, counts = np.unique(labels, return_counts=True)
        number = len(self.classes)
        wrong = ((values < 0) | (values >= number)) & (values != self.ignore_index)
        if wrong.any():
            listed = [f"{v} ({n} px)" for v, n in zip(values[wrong], counts[wrong])]
            raise ValueError(
                f"label map {path} holds {some(listed)}, which are no class: with {number} classes "
                f"labels are 0..{number - 1} or {self.ignore_index} (ignored); check the classes "
                "and reduce_zero_label of the data set"
            )
        kept = (values != self.ignore_index) & (values < number)
        self.pixels[values[kept]] += counts[kept]
        self.ignored += int(counts[~kept].sum())
        self.maps += 1

    def problem(self) -> str:
        """What makes every number of these labels mean nothing; ``''`` if nothing does."""
        maps = f"all {self.maps:,} label maps" if self.maps == self.of else f"{self.maps:,} maps"
        if not self.pixels.any() and self.maps == self.of:
            return (
                f"every pixel of {maps} is {self.ignore_index}, ignored: there is nothing to "
                "learn or to score; check reduce_zero_label, the classes and the label maps"
            )
        if len(self.classes) <= 2 and self.maps == self.of and self._black_and_white():
            return f"{maps} hold {self._black_and_white()}"
        return ""

    def warning(self) -> str:
        """Classes that no label map holds, where all were read; ``''`` if there are none."""
        if self.maps < self.of:
            found = self._black_and_white()
            return f"the {self.maps:,} label maps looked at hold {found}" if found else ""
        absent = [name for name, n in zip(self.classes, self.pixels) if not n]
        if not absent:
            return ""
        share = 100 * self.ignored / max(self.ignored + int(self.pixels.sum()), 1)
        text = (
            f"{len(absent):,} of {len(self.classes):,} classes are in none of the {self.maps:,} "
            f"label maps: {some(absent)} ({share:.1f} % of the pixels are ignored)"
        )
        found = self._black_and_white()
        return f"{text}; they hold {found}" if found else text

    def _black_and_white(self) -> str:
        """What masks of 0 and 255 mean here, if these are such."""
        if not (self.only_first and self.ignored and self.ignore_index == 255):
            return ""
        share = 100 * self.ignored / (self.ignored + int(self.pixels.sum()))
        remedy = (
            f"not {self.classes[1]!r}: write the masks with 0 and 1"
            if len(self.classes) > 1
            else f"and every other pixel {self.classes[0]!r}, the only class, so that each score "
            "is 100: give the background a class"
        )
        return f"0 and 255 only, and 255 ({share:.1f} % of the pixels) means 'ignored', {remedy}"

    @property
    def only_first(self) -> bool:
        """Whether labels are of the first class, and none of another."""
        return bool(self.pixels[:1].any() and not self.pixels[1:].any())


class Presence:
    """Which classes the labels of the samples that have passed hold.

    Args:
        counts: What is known already.
    """

    def __init__(self, counts: LabelCounts) -> None:
        self.classes = counts.classes
        self.unseen = counts.pixels == 0
        self.labelled = False

    def add(self, samples: Any) -> None:
        """Note the labels ``gt_sem_seg`` of some data samples; free once all have been seen."""
        for sample in samples or ():
            if not self.unseen.any() or "gt_sem_seg" not in sample:
                continue
            self.labelled = True
            labels = sample.gt_sem_seg.data.reshape(-1).long().cpu()
            seen = torch.bincount(labels.clamp(min=0), minlength=len(self.unseen))
            self.unseen &= seen.numpy()[: len(self.unseen)] == 0

    def absent(self) -> list[str]:
        """Names of the classes that no process has seen; none where no sample had labels."""
        everywhere = torch.tensor([not self.labelled, *self.unseen.tolist()], dtype=torch.int64)
        all_reduce(everywhere, "min")
        nobody, *unseen = everywhere.tolist()
        return [] if nobody else [name for name, n in zip(self.classes, unseen) if n]


def look_at_labels(dataset: Any, most: int = LOOKED_AT) -> LabelCounts | None:
    """Read some label maps of a data set, more until one has a label; None if it loads none.

    Raises:
        ValueError: A label map cannot be read, holds what is no class, or has another size than
            its photo; every pixel is ignored.
    """
    steps, meta = label_steps(dataset), getattr(dataset, "metainfo", None) or {}
    total = len(dataset)
    # detectors read stuff maps, of other classes than those of their boxes
    of_segmentation = hasattr(dataset, "reduce_zero_label")
    if not steps or not meta.get("classes") or not total or not of_segmentation:
        return None
    classes = list(meta["classes"])
    merged = meta.get("background_from")
    if merged is not None:
        classes = [*classes[:merged], "background"]
    counts = LabelCounts(classes, getattr(dataset, "ignore_index", 255), of=total)
    first = sorted({int(i) for i in np.linspace(0, total - 1, min(most, total))})
    for place in first:
        _read(dataset, place, steps[0], counts)
    for place in range(total):  # of some classes only, or a data set that is empty
        doubtful = len(classes) <= 2 and counts.only_first and counts.ignored
        if counts.pixels.any() and not doubtful:  # masks of 0 and 255, or of a rare thing
            break
        if place not in first:
            _read(dataset, place, steps[0], counts)
    _compare_photos(dataset, first[:_PHOTOS], steps[0])
    return counts


def _read(dataset: Any, place: int, step: Any, counts: LabelCounts) -> None:
    item = dataset.get_data_info(place)
    if item.get("seg_map_path") is None:
        counts.of -= 1
        return
    counts.add(_labels(step, item), str(item["seg_map_path"]))


def _labels(step: Any, item: dict[str, Any]) -> np.ndarray:
    try:
        step._load_seg_map(item)
    except (ValueError, OSError, KeyError):
        raise
    except Exception as error:  # mmcv and mmseg end in assertions, OpenCV in errors of its own
        raise ValueError(
            f"cannot read {item['seg_map_path']} as a label map ({error}); replace or remove it"
        ) from error
    labels: np.ndarray = item["gt_seg_map"]
    if type(step).__name__ == "LoadAnnotations":
        _check_bits(str(item["seg_map_path"]), step)
    return labels


def _check_bits(path: str, step: Any) -> None:
    """Refuse a map whose labels mmseg's own loader cuts to 8 bits: 256 becomes 0."""
    if getattr(step, "backend_args", None):
        return
    with open_picture(path) as picture:
        deep = picture.mode[0] in "IF"  # 16 or 32 bits, or floats
        values = np.asarray(picture) if deep else np.zeros(1)
    fits = (values == values.astype(np.uint8)) | (values == 2**16 - 1)  # the latter becomes 255
    if not fits.all():
        raise ValueError(
            f"label map {path} holds labels up to {values.max()} in {values.dtype}, and "
            f"{type(step).__name__} cuts them to 8 bits, so that 256 counts as 0; load it with "
            "LoadReadableAnnotations(bits=16) and ignore_index=65535, or convert the data set"
        )


def _compare_photos(dataset: Any, places: Sequence[int], step: Any) -> None:
    """Load the first photos as the pipeline does, and compare sizes."""
    load = next(steps_of(getattr(dataset.pipeline, "transforms", ())), None)
    if type(load).__name__ not in ("LoadImageFromFile", "LoadReadableImage"):
        return
    for place in places:
        item = load(dataset.get_data_info(place)) if load is not None else None
        if item is not None and item.get("seg_map_path"):
            compare(item, _labels(step, dict(item)).shape)


def compare(results: dict[str, Any], found: Sequence[int]) -> None:
    """Compare the sizes of a loaded photo and its label map.

    Raises:
        ValueError: They differ.
    """
    path, shape = results.get("seg_map_path"), results.get("ori_shape")
    if shape is None or len(found) != 2:  # mmseg makes (W,) of a map of one row
        return
    photo, said = str(results.get("img_path", "a photo")), (int(found[0]), int(found[1]))
    problem = size_problem(photo, (shape[0], shape[1]), said, f"label map {path}")
    if problem:
        raise ValueError(problem)


def turned_photos(paths: Sequence[str], most: int = LOOKED_AT, pipeline: Any = None) -> str:
    """A warning about photos that are loaded turned or mirrored and keep their size; or ``''``.

    Args:
        paths: Of the photos.
        most: How many are looked at.
        pipeline: Whose first step says how they are loaded.
    """
    load = next(steps_of(getattr(pipeline, "transforms", ())), None)
    if getattr(load, "color_type", "color") in ("color_ignore_orientation", "unchanged"):
        return ""
    some_paths = paths[:: max(len(paths) // most, 1)][:most]
    turned = [(path, turn) for path in some_paths if (turn := orientation(path)) > 1]
    if not turned:
        return ""
    return (
        f"{len(turned)} of {len(some_paths)} photos looked at are turned or mirrored by their EXIF "
        f"tag as they are loaded ({turned[0][0]!r}: orientation {turned[0][1]}): their annotations "
        "must be those of the turned photos"
    )
