"""Which query answers for which box: one to one, and only within the class of the query's text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.models.task_modules.assigners import FocalLossCost
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmclipdis.losses.objectness import paired_giou
from mmclipdis.utils.precision import at_least_fp32
from mmclipdis.utils.unknown_boxes import UNKNOWN

#: What a pair that must not be costs. Others: at most 2 * 7 + 5 * 4 + 2.
FORBIDDEN = 99.0


class CostWeights(NamedTuple):
    """Shares of the cost of a pair."""

    objectness: float = 2.0
    l1: float = 5.0
    giou: float = 2.0


COST_WEIGHTS = CostWeights()


class Matches(NamedTuple):
    """Matched pairs, sorted by layer, image and query; numbers (n,) each.

    ``target`` counts through the boxes of all images, concatenated.
    """

    layer: Tensor
    batch: Tensor
    query: Tensor
    target: Tensor


@torch.no_grad()
def match(
    logits: Tensor,
    boxes: Tensor,
    targets: Sequence[tuple[Tensor, Tensor]],
    query_classes: Tensor | None = None,
    wildcard: int | None = None,
    weights: CostWeights | Sequence[float] = COST_WEIGHTS,
    metas: Sequence[Mapping[str, Any]] | None = None,
) -> Matches:
    r"""The cheapest one-to-one matching of queries and boxes, for each layer and image.

    A pair costs :math:`2\,\mathrm{focal}(z) + 5\,|b - g|_1 - 2\,\mathrm{GIoU}(b, g)`, with the
    focal cost of mmdet (:math:`\alpha = 0.25, \gamma = 2`). With classes a query may only answer
    for a box of its own class. Other pairs cost 99, and what is matched so nevertheless is left
    out. A box that no query of its class touches (GIoU > 0) remains unmatched, and takes no query
    from another box.

    The costs of all layers and images are computed at once and go to the CPU once; what loops is
    the assignment.

    Args:
        logits: z of the objectness, ``(B, Q)``, or ``(L, B, Q)`` for several layers at once. Half
            types are computed in fp32, also under autocast.
        boxes: ``(B, Q, 4)`` or ``(L, B, Q, 4)``: cx, cy, w, h as shares of the image.
        targets: Of each image: boxes ``(G, 4)``, cx, cy, w, h as above, and their classes ``(G,)``,
            for a pseudo box -1 or the wildcard. No boxes at all are fine.
        query_classes: ``(B, Q)``, the class of the text that a query carries. None: classes play no
            part, as for the encoder's output.
        wildcard: The class, among the queries', of boxes of -1. None if there are none.
        weights: Shares of the objectness, the L1 distance and the GIoU.
        metas: Of the images, to name the one that is at fault.

    Returns:
        The pairs; each query and each target at most once in a layer.

    Raises:
        ValueError: Shapes or weights that do not fit, or a box of the annotations that is not
            finite.
        RuntimeError: A prediction that is not finite.

    Source: OV-DQUO (AAAI 2025). GIoU has 1e-6 added to its denominators there, unlike mmdet's cost.
    """
    _check_shapes(logits, boxes, targets, query_classes)
    weights = checked_costs(weights)
    layered = logits.ndim == 3
    z, b = (logits, boxes) if layered else (logits[None], boxes[None])
    counts = [len(target[0]) for target in targets]
    if max(counts, default=0) == 0:
        _check_finite(z, b, None, metas)
        return Matches(*(logits.new_zeros(0, dtype=torch.long) for _ in Matches._fields))
    # autocast has no half type for any of the operations below
    z, b = at_least_fp32(z), at_least_fp32(b)
    g = pad_sequence([target[0].to(b) for target in targets], batch_first=True)  # (B, G, 4)
    _check_finite(z, b, g, metas)
    cost, giou = _costs(z, b, g, weights)
    if query_classes is not None:
        allowed = _allowed(giou, [target[1] for target in targets], query_classes, wildcard)
        cost = torch.where(allowed, cost, FORBIDDEN)
    return _assign(cost.cpu().numpy(), counts, query_classes is not None, logits.device)


def checked_shares(name: str, given: Any) -> CostWeights:
    """Weights of objectness, L1 and GIoU, as an option has them.

    Raises:
        ValueError: they are not three finite numbers from 0 on.
    """
    values = tuple(given) if isinstance(given, (list, tuple)) else ()
    numbers = (isinstance(each, (int, float)) and 0 <= each < math.inf for each in values)
    if len(values) != 3 or not all(numbers):
        raise ValueError(
            f"{name} must be three numbers from 0 on, of objectness, L1 and GIoU, got {given!r}"
        )
    return CostWeights(*values)


def checked_costs(given: Any) -> CostWeights:
    """Weights of the cost of a pair, by which any that is allowed costs less than one that is not.

    Raises:
        ValueError: as :func:`checked_shares`, or they are too high.
    """
    weights = checked_shares("cost_weights", given)
    if 7 * weights.objectness + 4 * weights.l1 + weights.giou >= FORBIDDEN:
        raise ValueError(
            f"cost_weights {tuple(weights)}: 7 * objectness + 4 * l1 + giou must stay below "
            f"{FORBIDDEN:g}, what a forbidden pair costs"
        )
    return weights


def _costs(z: Tensor, b: Tensor, g: Tensor, weights: CostWeights) -> tuple[Tensor, Tensor]:
    """Cost and GIoU (L, B, Q, G) of all pairs."""
    focal = FocalLossCost(weight=weights.objectness)(
        InstanceData(scores=z.reshape(-1, 1)),
        InstanceData(labels=torch.zeros(1, dtype=torch.long, device=z.device)),
    ).view(*z.shape, 1)
    l1 = torch.cdist(b, g.expand(len(b), -1, -1, -1), p=1)
    giou = paired_giou(
        bbox_cxcywh_to_xyxy(b)[..., :, None, :], bbox_cxcywh_to_xyxy(g)[..., None, :, :]
    )
    return focal + weights.l1 * l1 - weights.giou * giou, giou


def _allowed(
    giou: Tensor, classes: Sequence[Tensor], query_classes: Tensor, wildcard: int | None
) -> Tensor:
    """Which pairs (L, B, Q, G) are of one class, of boxes that a query of that class touches."""
    labels = pad_sequence([each.to(query_classes) for each in classes], batch_first=True)
    if wildcard is not None:
        labels = torch.where(labels == UNKNOWN, wildcard, labels)
    same = query_classes[:, :, None] == labels[:, None, :]
    touched = (same & (giou > 0)).any(2, keepdim=True)
    return same & touched


def _assign(
    cost: np.ndarray, counts: Sequence[int], constrained: bool, device: torch.device
) -> Matches:
    """Assignment of each layer and image; padded boxes take no part."""
    starts = np.cumsum([0, *counts])
    found = []
    for layer, images in enumerate(cost):
        for image, (pairs, count, start) in enumerate(zip(images, counts, starts)):
            query, target = linear_sum_assignment(pairs[:, :count])
            if constrained:
                kept = pairs[query, target] != FORBIDDEN
                query, target = query[kept], target[kept]
            where = np.full_like(query, layer), np.full_like(query, image)
            found.append(np.stack([*where, query, target + start]))
    return Matches(*torch.from_numpy(np.concatenate(found, axis=1)).to(device))


def _check_shapes(
    logits: Tensor, boxes: Tensor, targets: Sequence[Any], query_classes: Tensor | None
) -> None:
    shape = tuple(logits.shape)
    if logits.ndim not in (2, 3) or tuple(boxes.shape) != (*shape, 4):
        raise ValueError(
            "expected logits (B, Q) and boxes (B, Q, 4), both with layers before them or without, "
            f"got {shape} and {tuple(boxes.shape)}"
        )
    if len(targets) != shape[-2]:
        raise ValueError(f"targets of {len(targets)} images for predictions of {shape[-2]}")
    if query_classes is not None and tuple(query_classes.shape) != shape[-2:]:
        raise ValueError(
            f"query_classes of shape {tuple(query_classes.shape)} for {shape[-2]} images of "
            f"{shape[-1]} queries"
        )


def _check_finite(
    z: Tensor, b: Tensor, g: Tensor | None, metas: Sequence[Mapping[str, Any]] | None
) -> None:
    """Raise for what linear_sum_assignment would refuse without naming an image."""
    predicted = (z.isfinite() & b.isfinite().all(-1)).all(-1).all(0)  # (B,)
    given = torch.ones_like(predicted) if g is None else g.isfinite().all(-1).all(-1)
    fine_boxes, fine_predictions = torch.stack([given, predicted]).tolist()
    if not all(fine_boxes):
        raise ValueError(
            f"{_name(fine_boxes.index(False), metas)}: a box of the annotations is not finite; "
            "mend the file, or leave the image out"
        )
    if not all(fine_predictions):
        raise RuntimeError(
            f"{_name(fine_predictions.index(False), metas)}: the model's predictions are not "
            "finite; lower the learning rate, clip gradients, or train without --amp"
        )


def _name(image: int, metas: Sequence[Mapping[str, Any]] | None) -> str:
    path = metas[image].get("img_path") if metas is not None else None
    return str(path) if path else f"image {image} of the batch"
