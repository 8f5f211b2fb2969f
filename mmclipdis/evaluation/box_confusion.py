"""What predicted boxes are taken for: pairs of labelled and predicted class."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_area, box_iou


@dataclass(frozen=True)
class Boxes:
    """Boxes of one image.

    Attributes:
        corners: float (n, 4): left, top, right, bottom in pixels.
        labels: int (n,).
        crowd: bool (n,), regions with many objects; only of what is labelled.
    """

    corners: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]


def box_pairs(
    predicted: Boxes,
    labelled: Boxes,
    num_classes: int,
    iou_thr: float,
    judged: Collection[int] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Pairs (n, 2) of labelled and predicted class; ``num_classes`` is the background.

    The rule of mmdet's ``confusion_matrix.py``: every predicted box is paired with each labelled
    one that it overlaps by ``iou_thr``, or else with the background; a labelled box that no
    prediction of its class overlaps so is paired with the background as well. Different from it: a
    prediction that lies in a crowd of its class, or (LVIS) is of a class that nobody looked for in
    this image, is no false alarm.

    Args:
        predicted: Above the threshold of scores.
        labelled: Of the same image.
        num_classes: C.
        iou_thr: Least intersection over union, in [0, 1].
        judged: Classes that were looked for in this image; None: all.

    Returns:
        The pairs, and which of the labelled boxes that are no crowds were found (in their order).
    """
    things = ~labelled.crowd
    gt_corners, gt_labels = labelled.corners[things], labelled.labels[things]
    corners = torch.from_numpy(predicted.corners)
    overlaps = box_iou(corners, torch.from_numpy(gt_corners)).numpy() >= iou_thr
    places, partners = np.nonzero(overlaps)
    same = overlaps & (predicted.labels[:, None] == gt_labels)
    found = same.any(0)
    alone = ~overlaps.any(1) & ~_in_crowd(predicted, labelled, iou_thr)
    if judged is not None:
        alone &= np.isin(predicted.labels, list(judged))
    alarms, missed = predicted.labels[alone], gt_labels[~found]
    pairs = [
        np.stack([gt_labels[partners], predicted.labels[places]], 1),
        np.stack([np.full_like(alarms, num_classes), alarms], 1),
        np.stack([missed, np.full_like(missed, num_classes)], 1),
    ]
    return np.concatenate(pairs), found


def _in_crowd(predicted: Boxes, labelled: Boxes, thr: float) -> NDArray[np.bool_]:
    """Whether at least ``thr`` of a predicted box lies in a crowd of its class (COCO's rule)."""
    crowds, labels = labelled.corners[labelled.crowd], labelled.labels[labelled.crowd]
    low = np.maximum(predicted.corners[:, None, :2], crowds[:, :2])
    high = np.minimum(predicted.corners[:, None, 2:], crowds[:, 2:])
    inside = np.clip(high - low, 0, None).prod(-1)
    area = box_area(torch.from_numpy(predicted.corners)).numpy()[:, None]
    covered = (inside >= thr * area) & (inside > 0) & (predicted.labels[:, None] == labels)
    hit: NDArray[np.bool_] = covered.any(1)
    return hit
