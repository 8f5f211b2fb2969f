"""Per-class NMS that looks at the strongest boxes first: for thousands of classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmcv.ops import batched_nms
from torch import Tensor

#: Pairs of box and class looked at first, for each detection asked for; then four times as many.
FIRST = 10


def strongest_nms(
    boxes: Tensor, scores: Tensor, score_thr: float, nms: Mapping[str, Any] | None, max_num: int
) -> tuple[Tensor, Tensor]:
    """What mmdet's ``multiclass_nms`` finds, without repeating every box for every class.

    A box is suppressed by stronger ones only, so that the ``max_num`` strongest detections do not
    depend on weaker pairs of box and class. With 1203 classes and a threshold of 1e-4 these are
    almost all of a million.

    Args:
        boxes: ``(n, 4)``, one a proposal, for all classes; pixels.
        scores: ``(n, K + 1)``; the background's column is last and not read.
        score_thr: Only scores above it count.
        nms: As in ``mmcv.ops.batched_nms``; also soft-NMS. None: nothing is suppressed.
        max_num: Most detections; all of them if it is not positive.

    Returns:
        Boxes with scores ``(m, 5)``, by falling score, and labels ``(m,)``. Among equal scores the
        order is open, as in mmdet.
    """
    foreground = scores[:, :-1]
    above = foreground > score_thr
    total = int(above.sum())
    count = FIRST * max_num if max_num > 0 else total
    while count < total:
        cut = foreground.flatten().topk(count).values[-1]
        found, labels = _nms(boxes, foreground, foreground >= cut, nms, max_num)
        # Soft-NMS lowers scores: then a pair that was left out might be stronger.
        if len(found) == max_num and bool(found[-1, -1] >= cut):
            return found, labels
        count *= 4
    return _nms(boxes, foreground, above, nms, max_num)


def _nms(
    boxes: Tensor, scores: Tensor, chosen: Tensor, nms: Mapping[str, Any] | None, max_num: int
) -> tuple[Tensor, Tensor]:
    """NMS of the ``chosen`` (n, K) pairs of box and class."""
    rows, labels = chosen.nonzero(as_tuple=True)
    if len(rows) == 0:
        return boxes.new_zeros(0, 5), labels
    found, keep = batched_nms(boxes[rows], scores[rows, labels], labels, nms and dict(nms))
    end = max_num if max_num > 0 else len(keep)
    return found[:end], labels[keep[:end]]
