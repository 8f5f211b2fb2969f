"""Softmax cross-entropy of a detector that must not learn to suppress its novel classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmclipdis.losses.reductions import Reduction, check_reduction
from mmclipdis.utils.precision import at_least_fp32

#: Columns that weigh less take no part in the softmax.
MASKED_BELOW = 1e-5


def masked_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    class_weight: Tensor,
    avg_factor: float | Tensor | None = None,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy over the classes that are trained, weighted by the class of the sample.

    With the trained classes :math:`T = \{c : w_c \ge 10^{-5}\}` a sample of class y costs

    .. math:: L = -w_y \log \frac{e^{z_y}}{\sum_{c \in T} e^{z_c}}

    The others (F-ViT's novel classes: their boxes are in the images, but not labelled) get no
    gradient, so that training does not teach the detector that they are background.

    Args:
        logits: z, ``(n, C)``. Half types are computed in fp32, also under autocast; not changed.
        labels: ``(n,)``, class numbers below C. A sample of a class outside T costs nothing.
        class_weight: w, ``(C,)``, not negative, at least one of them in T (else the loss is nan).
        avg_factor: What ``"mean"`` divides by in place of n. mmdet's heads hand over the number of
            samples with a positive weight, never the sum of the class weights.
        sample_weight: Factors ``(n,)``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, which gives ``(n,)``.

    Returns:
        A scalar (0 without samples), or ``(n,)`` for ``"none"``.

    Raises:
        ValueError: Shapes that do not fit, an unknown reduction, or an ``avg_factor`` for a sum.

    Source: F-ViT, the detector of CLIPSelf (ICLR 2024). There a sample of a masked class gives nan.
    """
    _check(logits, labels, class_weight, avg_factor, reduction)
    # autocast has no half type for any of the operations below
    z = at_least_fp32(logits)
    weight = class_weight.to(z)
    trained = weight >= MASKED_BELOW
    z = z.masked_fill(~trained, -torch.inf)
    losses = z.logsumexp(1) - z.gather(1, labels[:, None])[:, 0]
    # chosen, not multiplied: such a loss is inf, and inf times 0 is nan
    losses = torch.where(trained[labels], losses * weight[labels], 0.0)
    if sample_weight is not None:
        losses = losses * sample_weight.to(losses)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    return losses.sum() / (max(len(losses), 1) if avg_factor is None else avg_factor)


def novel_class_weight(novel: Sequence[bool], background: float) -> Tensor:
    """Weights (K + 1,) of F-ViT: 1 for a base class, 0 for a novel one, and the background's.

    Args:
        novel: For each of the K classes, whether it is novel.
        background: 0.6 on OV-COCO, 0.9 on OV-LVIS.

    Raises:
        ValueError: if the background would be masked, which is the label of most samples.
    """
    if background < MASKED_BELOW:
        raise ValueError(f"the weight of the background must be positive, got {background}")
    return torch.tensor([*(0.0 if flag else 1.0 for flag in novel), background])


def _check(
    logits: Tensor,
    labels: Tensor,
    class_weight: Tensor,
    avg_factor: float | Tensor | None,
    reduction: str,
) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"expected logits (n, C) and labels (n,), got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}"
        )
    if class_weight.shape != logits.shape[1:]:
        raise ValueError(
            f"class_weight of shape {tuple(class_weight.shape)} for {logits.shape[1]} columns: "
            "give one weight a class, and one for the background"
        )
    check_reduction(reduction)
    if reduction == "sum" and avg_factor is not None:
        raise ValueError("avg_factor divides a mean, not a sum: take reduction='mean'")
