"""Binary cross-entropy of every class against a label map, without a one-hot target."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmclipdis.losses.ranks import count_per_rank
from mmclipdis.losses.reductions import Reduction, check_reduction

#: ``softplus`` returns its argument above this; 50 is exact to the last bit of a float64.
_LINEAR_FROM = 50.0


def gathered_bce(
    logits: Tensor,
    labels: Tensor,
    *,
    ignore_index: int = 255,
    ignore_as_negative: bool = True,
    class_chunk: int | None = None,
    across_ranks: bool = True,
    weight: Tensor | None = None,
    avg_factor: float | Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Mean BCE-with-logits over all classes and pixels, from one gather.

    For one-hot targets :math:`\mathrm{BCE}(z, y) = \mathrm{softplus}(z) - z\,y`, so

    .. math:: L = \Big(\sum_{p,t} \mathrm{softplus}(z_{pt}) - \sum_{p\ \mathrm{valid}}
              z_{p, y_p}\Big) / (P \cdot T)

    and the dense target (float, as large as the logits) is never made. Classes do not interact, so
    the sums run over chunks of classes, and full-size logits exist for one chunk only.

    Args:
        logits: ``(B, T, h, w)``. At another resolution than the labels they are resized to it
            (bilinear, half-pixel centres). Half types are summed in fp32.
        labels: ``(B, H, W)``, class numbers below T, or ``ignore_index``.
        ignore_index: Label of pixels without class.
        ignore_as_negative: True counts such pixels as negatives of every class, as the released
            CAT-Seg does (its published numbers come from that); False leaves them out of both
            sums and of ``P``.
        class_chunk: Classes at a time, resized again in the backward pass; None for all at once.
        across_ranks: Whether the pixels left with ``ignore_as_negative=False`` are counted over the
            default process group, if there is one: a rank's sum over the mean count of the ranks
            averages, as DDP takes it, to the loss of the joint batch. Every rank has to make the
            call.
        weight: Factors of the pixels ``(B, H, W)``; the mean divides by as many as without.
        avg_factor: What ``"mean"`` divides the sum over pixels and classes by.
        reduction: ``"mean"``, ``"sum"`` over pixels and classes, or ``"none"``: the mean over the
            classes of every pixel, ``(B, H, W)``.

    Returns:
        The mean, a scalar; 0 (with gradient 0) if no pixel counts.

    Raises:
        ValueError: Shapes that do not fit, a label that is neither a class nor ``ignore_index``, an
            unknown reduction, or an ``avg_factor`` for another one than the mean.

    Source: CAT-Seg (CVPR 2024), released code; there with dense targets, same value.
    """
    labels = labels.long()
    _check(logits, labels, ignore_index, class_chunk)
    _check_reduction(labels, weight, avg_factor, reduction)
    classes = logits.shape[1]
    valid = labels != ignore_index
    chunk_sum = partial(
        _chunk_sum,
        labels=labels,
        valid=valid,
        ignore_as_negative=ignore_as_negative,
        per_pixel=weight is not None or reduction == "none",
    )
    step = class_chunk or classes
    total = torch.zeros((), device=logits.device)
    for first in range(0, classes, step):
        part = logits[:, first : first + step]
        if step < classes and torch.is_grad_enabled():
            total = total + checkpoint(chunk_sum, part, first, use_reentrant=False)
        else:
            total = total + chunk_sum(part, first)
    if weight is not None:
        total = total * weight.to(total)
    if reduction == "none":
        return total / classes
    total = total.sum()
    if reduction == "sum" or avg_factor is not None:
        return total if avg_factor is None else total / avg_factor
    if ignore_as_negative:  # every rank has as many, whatever its labels
        return total / (labels.numel() * classes)
    return total / classes / count_per_rank(valid.sum(), across_ranks)


def _chunk_sum(
    part: Tensor,
    first: int,
    labels: Tensor,
    valid: Tensor,
    ignore_as_negative: bool,
    per_pixel: bool,
) -> Tensor:
    """Both sums of :func:`gathered_bce` over the classes from ``first`` on.

    Args:
        part: Their logits ``(B, t, h, w)``.
        first: Number of the first of them.
        labels: ``(B, H, W)`` int64.
        valid: ``(B, H, W)``, whether a pixel has a class at all.
        ignore_as_negative: Whether pixels without class count as negatives.
        per_pixel: Sum over the classes only, ``(B, H, W)``.
    """
    part = part.float() if part.dtype.itemsize < 4 else part
    if part.shape[2:] != labels.shape[1:]:
        part = F.interpolate(part, size=labels.shape[1:], mode="bilinear", align_corners=False)
    negative = F.softplus(part, threshold=_LINEAR_FROM)
    if not ignore_as_negative:
        negative = torch.where(valid.unsqueeze(1), negative, 0.0)
    index = labels - first
    inside = valid & (index >= 0) & (index < part.shape[1])
    own = part.gather(1, index.clamp(0, part.shape[1] - 1).unsqueeze(1)).squeeze(1)
    own = torch.where(inside, own, 0.0)
    return negative.sum(1) - own if per_pixel else negative.sum() - own.sum()


def _check_reduction(
    labels: Tensor, weight: Tensor | None, avg_factor: float | Tensor | None, reduction: str
) -> None:
    check_reduction(reduction)
    if avg_factor is not None and reduction != "mean":
        raise ValueError(f"avg_factor divides a mean, not a {reduction}: take reduction='mean'.")
    if weight is not None and weight.shape != labels.shape:
        raise ValueError(
            f"Expected weight (B, H, W) = {tuple(labels.shape)}, got {tuple(weight.shape)}."
        )


def _check(logits: Tensor, labels: Tensor, ignore_index: int, class_chunk: int | None) -> None:
    if logits.ndim != 4 or labels.ndim != 3 or len(labels) != len(logits):
        raise ValueError(
            f"Expected logits (B, T, h, w) and labels (B, H, W), got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}."
        )
    if class_chunk is not None and class_chunk < 1:
        raise ValueError(f"class_chunk must be at least 1 or None, got {class_chunk}.")
    classes = logits.shape[1]
    wrong = (labels != ignore_index) & ((labels < 0) | (labels >= classes))
    if bool(wrong.any()):
        raise ValueError(
            f"Label {labels[wrong][0].item()} in the data, but the vocabulary has {classes} "
            f"classes (0 to {classes - 1}, ignore_index={ignore_index}). Use the vocabulary of the "
            "data set."
        )
