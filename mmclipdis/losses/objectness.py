"""Objectness of a DETR's queries, and overlaps of boxes as its losses and costs take them.

Source: OV-DQUO (AAAI 2025).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.utils.precision import at_least_fp32

#: Added to every denominator, for normalised boxes: one of 10 x 10 in 1000 x 1000 pixels has an
#: area of 1e-4, so that it is seen in the third digit of a small box's overlap.
EPS = 1e-6


def varifocal_objectness(
    logits: Tensor,
    iou: Tensor,
    positive: Tensor,
    weight: Tensor | None = None,
    *,
    alpha: float = 0.75,
    gamma: float = 2.0,
) -> Tensor:
    r"""What each query's objectness costs: a positive one should say how well its box fits.

    With :math:`p = \sigma(z)`, and q the IoU with the box that a positive query is matched to,

    .. math::
        L^+ = \sqrt{w}\, q\, \mathrm{BCE}(p, q) \qquad L^- = -\alpha\, p^\gamma \log(1 - p)

    Neither q nor the factor :math:`p^\gamma` gets a gradient. A positive query with an IoU of 0
    costs nothing. mmdet's varifocal loss takes it for a negative one, and lets gradients through
    the factor.

    Args:
        logits: z, of any shape. Half types are computed in fp32, also under autocast.
        iou: q in [0, 1], of the same shape; read at positive queries only.
        positive: Which queries are matched; boolean, of the same shape.
        weight: w in [0, 1], of the same shape: 1 for an annotated box, the foreground's score for a
            pseudo box; read at positive queries only. None is 1 everywhere.
        alpha: :math:`\alpha`, the share of the negative queries.
        gamma: :math:`\gamma`.

    Returns:
        The loss of each query, in the shape of ``logits``. OV-DQUO divides the sum by the number of
        matches.

    Raises:
        ValueError: Shapes that differ.
    """
    _check(logits, positive, iou=iou, weight=weight)
    z = at_least_fp32(logits)  # autocast has no half type for any of the operations below
    # chosen before anything is computed: what stands at negative queries may be anything
    q = torch.where(positive, iou.detach().to(z), 0.0)
    found = q * F.binary_cross_entropy_with_logits(z, q, reduction="none") * _root(weight, positive)
    missed = alpha * z.detach().sigmoid().pow(gamma) * F.softplus(z)
    return torch.where(positive, found, missed)


def focal_denoising(
    logits: Tensor,
    positive: Tensor,
    weight: Tensor | None = None,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    r"""Focal loss of each denoising query: near its box there is an object, far from it none.

    .. math::
        L^+ = -\sqrt{w}\, \alpha\, (1 - p)^\gamma \log p \qquad
        L^- = -(1 - \alpha)\, p^\gamma \log(1 - p)

    Args:
        logits: z, of any shape, :math:`p = \sigma(z)`. Half types are computed in fp32, also under
            autocast.
        positive: Whether the query is a box that was moved a little; boolean, of the same shape.
        weight: w in [0, 1], of the same shape; read at positive queries only. None is 1.
        alpha: :math:`\alpha`, the share of the positive queries.
        gamma: :math:`\gamma`. Other than in the varifocal loss, its factor has a gradient.

    Returns:
        The loss of each query, in the shape of ``logits``.

    Raises:
        ValueError: Shapes that differ.
    """
    _check(logits, positive, weight=weight)
    z = at_least_fp32(logits)  # as above
    right = torch.where(positive, z, -z)  # the logit of what the query is
    share = torch.where(positive, alpha * _root(weight, positive), 1 - alpha)
    return share * (-right).sigmoid().pow(gamma) * F.softplus(-right)


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU of boxes and others: intersection / (union + 1e-6).

    Args:
        boxes: ``(..., 4)``, x0, y0, x1, y1 as shares of the image. Half types are computed in fp32.
        others: ``(..., 4)``; the leading dimensions are broadcast, ``boxes[:, None]`` gives all
            pairs.

    Returns:
        IoU in [0, 1), in the shape of the leading dimensions. Differentiable, finite for boxes of
        zero size.
    """
    intersection, union, _ = _areas(boxes, others)
    return intersection / (union + EPS)


def paired_giou(boxes: Tensor, others: Tensor) -> Tensor:
    """Generalised IoU: IoU - (hull - union) / (hull + 1e-6), the hull being the box around both.

    Args:
        boxes: As in :func:`paired_iou`.
        others: As in :func:`paired_iou`.

    Returns:
        GIoU in (-1, 1), in the shape of the leading dimensions. Differentiable, finite for boxes of
        zero size.
    """
    intersection, union, hull = _areas(boxes, others)
    return intersection / (union + EPS) - (hull - union) / (hull + EPS)


def _areas(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Areas of the intersection, the union and the box around both."""
    x0, y0, x1, y1 = at_least_fp32(boxes).unbind(-1)
    left, top, right, bottom = at_least_fp32(others).unbind(-1)
    width = (torch.min(x1, right) - torch.max(x0, left)).clamp(min=0)
    height = (torch.min(y1, bottom) - torch.max(y0, top)).clamp(min=0)
    intersection = width * height
    union = (x1 - x0) * (y1 - y0) + (right - left) * (bottom - top) - intersection
    hull = (torch.max(x1, right) - torch.min(x0, left)) * (
        torch.max(y1, bottom) - torch.min(y0, top)
    )
    return intersection, union, hull


def _root(weight: Tensor | None, positive: Tensor) -> Tensor | float:
    """Square roots of the weights of positive queries."""
    if weight is None:
        return 1.0
    return at_least_fp32(torch.where(positive, weight.detach(), 1.0)).sqrt()


def _check(logits: Tensor, positive: Tensor, **others: Tensor | None) -> None:
    for name, values in {"positive": positive, **others}.items():
        if values is not None and values.shape != logits.shape:
            raise ValueError(
                f"{name} of shape {tuple(values.shape)} for logits {tuple(logits.shape)}: expected "
                "one value a query"
            )
