"""Predicted and labelled classes of one image, checked before they are counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmclipdis.utils.labels import no_class
from mmclipdis.utils.names import name_list
from mmclipdis.utils.photo_sizes import size_problem


def scored_classes(meta: Mapping[str, Any], background_from: int | None = None) -> list[str]:
    """Names of the classes that are scored: the data set's, or some and the background.

    Args:
        meta: The data set's ``metainfo``.
        background_from: First of the classes that are names of the background; None takes that of
            ``meta``, if it has any.

    Raises:
        ValueError: ``background_from`` is beyond the classes.
    """
    names = list(name_list(meta["classes"], "the data set's classes", twice=True))
    first = background_from or meta.get("background_from")
    if first is None:
        return names
    if first >= len(names):
        raise ValueError(
            f"background_from={first}, but the data set has {len(names)} classes, 0 to "
            f"{len(names) - 1}; it is the first of those that name the background"
        )
    return [*names[:first], "background"]


def check_background(background_from: int | None) -> int | None:
    """Refuse a number of foreground classes below 1."""
    if background_from is not None and background_from < 1:
        raise ValueError(
            f"background_from={background_from}: it is the number of foreground classes, 1 or more"
        )
    return background_from


def check_ignored(ignore_index: int, names: Sequence[str]) -> None:
    """Refuse 255 as the ignored label where it is the number of a class."""
    if ignore_index == 255 < len(names):
        raise ValueError(
            f"ignore_index=255 of the metric is the number of a class ({names[255]!r}), which "
            "would not be scored; set ignore_index=65535, as in the labels of 16 bits"
        )


def prediction_of(sample: Mapping[str, Any], num_classes: int, predictable: int) -> Tensor:
    """Predicted classes (H, W) of a sample, -1 where the model gave none.

    Args:
        sample: With ``pred_sem_seg``.
        num_classes: Classes that are scored; a larger prediction is the last, the background.
        predictable: Classes that the model can name.

    Raises:
        ValueError: a prediction is no class; names the image.
    """
    _check(sample, "pred_sem_seg", predictable, no_class(predictable))
    predicted: Tensor = sample["pred_sem_seg"]["data"].squeeze()
    nothing = predicted == no_class(predictable)
    # num_classes - 1 is the background where one is merged, else the last class
    return predicted.clamp(max=num_classes - 1).masked_fill(nothing, -1)


def labels_of(sample: Mapping[str, Any], num_classes: int, ignore_index: int) -> Tensor:
    """Labels (H, W) of a sample.

    Raises:
        ValueError: a label is neither a class nor ``ignore_index``, or the map has another size
            than the prediction: the photo was turned, or cut. Names the file.
    """
    _check(sample, "gt_sem_seg", num_classes, ignore_index)
    predicted, labelled = (
        tuple(sample[key]["data"].shape[-2:]) for key in ("pred_sem_seg", "gt_sem_seg")
    )
    path = sample.get("seg_map_path")
    photo = str(sample.get("img_path", "a photo"))
    problem = size_problem(photo, predicted, labelled, f"label map {path}")
    if problem:
        raise ValueError(problem)
    labels: Tensor = sample["gt_sem_seg"]["data"].squeeze()
    return labels


def _check(sample: Mapping[str, Any], field: str, num_classes: int, other: int) -> None:
    """Refuse values that are neither below ``num_classes`` nor ``other``."""
    labels = field == "gt_sem_seg"
    if field not in sample:
        where = sample.get("img_path") or "a sample"
        raise ValueError(
            f"{where} has no {field}: "
            + (
                "the test pipeline needs dict(type='LoadAnnotations')"
                if labels
                else "no prediction"
            )
        )
    values = sample[field]["data"]
    low, high = values.aminmax()
    if low >= 0 and high < num_classes:
        return
    wrong = ((values < 0) | (values >= num_classes)) & (values != other)
    if not bool(wrong.any()):
        return
    found, pixels = torch.unique(values[wrong], return_counts=True)
    listed = [f"{v} ({n} px)" for v, n in zip(found.tolist(), pixels.tolist(), strict=True)]
    more = f" and {len(listed) - 10} more" if len(listed) > 10 else ""
    what, key = ("the label map", "seg_map_path") if labels else ("the prediction for", "img_path")
    where = sample.get(key) or sample.get("img_path") or "a sample"
    ignored = f", ignored: {other}" if labels else ""
    if labels and sample.get("reduce_zero_label"):
        more += " (the file's less one, for reduce_zero_label)"
    share = f"{int(pixels.sum())} of {values.numel()} pixels"
    raise ValueError(
        f"{what} {where} holds the values {', '.join(listed[:10])}{more}; {share} are no "
        f"class: the data set has {num_classes} classes (0..{num_classes - 1}{ignored}); check "
        "the classes and reduce_zero_label of the data set, ignore_index of the metric, and the "
        "vocabulary"
    )
