"""What a loss must know of its label maps: that they fit the classes, and how many pixels count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmseg.models.losses import CrossEntropyLoss
from torch import Tensor

from mmclipdis.losses.ranks import count_per_rank


def check_labels(
    labels: Tensor, num_classes: int, ignore_index: int, paths: Sequence[str | None]
) -> None:
    """Refuse labels that are no class: in a loss they are an index error, on a GPU its end.

    Args:
        labels: integers (B, H, W), one map an image.
        num_classes: C; labels are 0..C-1 or ``ignore_index``.
        ignore_index: the label without loss.
        paths: file of each label map (``seg_map_path`` of the data samples), None if not known.

    Raises:
        ValueError: naming the files, the labels found, the classes there are, and what to do.
    """
    wrong = ((labels < 0) | (labels >= num_classes)) & (labels != ignore_index)
    if not bool(wrong.any()):
        return
    found = []
    for path, label, bad in zip(paths, labels, wrong, strict=True):
        values = label[bad].unique().tolist()
        if values:
            more = f" and {len(values) - 5} more" if len(values) > 5 else ""
            found.append(f"{path or 'a label map'} has {', '.join(map(str, values[:5]))}{more}")
    more = f"; {len(found) - 3} more files" if len(found) > 3 else ""
    raise ValueError(
        f"labels that are no class: {'; '.join(found[:3])}{more}; with {num_classes} classes they "
        f"must be 0..{num_classes - 1} or {ignore_index} (ignored); name the classes of these "
        "files as vocabulary, or set the data set's reduce_zero_label (True if 0 means unlabelled)"
    )


def joint_count(
    loss: Any, labels: Tensor, num_classes: int, ignore_index: int
) -> dict[str, Tensor]:
    """``avg_factor`` for mmseg's ``CrossEntropyLoss`` over labelled pixels, counted over all ranks.

    mmseg divides by the pixels of the own process. Ranks with many ignored pixels then weigh as
    much as the others, and DDP's mean is not that of the joint batch; a rank's sum over the mean
    count is (:func:`~mmclipdis.losses.ranks.count_per_rank`).

    Args:
        loss: The loss module.
        labels: Class numbers ``(B, H, W)`` int64.
        num_classes: C, which mmseg's sigmoid loss counts every pixel times.
        ignore_index: The label without loss.

    Returns:
        The argument; nothing for a loss that counts no pixels (other losses, sums, or a mean over
        all pixels, of which every rank has as many).
    """
    counts = isinstance(loss, CrossEntropyLoss) and loss.reduction == "mean"
    if not counts or not loss.avg_non_ignore or loss.class_weight is not None:
        return {}
    count = count_per_rank((labels != ignore_index).sum())
    return {"avg_factor": count * num_classes if loss.use_sigmoid else count}
