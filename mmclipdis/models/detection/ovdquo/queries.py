"""What OV-DQUO's queries ask for: a class each, by CLIP's word about the region they start from.

Boxes are (cx, cy, w, h) in 0..1 of the photo, without what it was padded with.
Source: OV-DQUO (AAAI 2025).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from mmclipdis.models.detection.ovdquo.targets import Targets
from mmclipdis.utils.precision import at_least_fp32, without_autocast
from mmclipdis.utils.unknown_boxes import UNKNOWN


@dataclass
class Encoded:
    """What the deformable encoder found in a batch, for any classes.

    Attributes:
        memory: ``(B, N, dim)``.
        facts: What the decoder must know of the levels, as in mmdet.
        logits: ``(B, Q)``, objectness of the strongest places, by falling value.
        boxes: ``(B, Q, 4)`` of these: (cx, cy, w, h) in 0..1 of the photo.
        starts: ``(B, Q, 4)``: the same before the sigmoid, without gradients.
    """

    memory: Tensor
    facts: dict[str, Any]
    logits: Tensor
    boxes: Tensor
    starts: Tensor

    def of(self, places: Sequence[int]) -> Encoded:
        """The same of some images."""
        facts = dict(self.facts)
        for name in ("memory_mask", "valid_ratios"):
            facts[name] = None if facts[name] is None else facts[name][places]
        rest = (self.logits[places], self.boxes[places], self.starts[places])
        return Encoded(self.memory[places], facts, *rest)


def best_classes(
    similarities: Tensor, temperature: float, novel: Tensor | None = None, factor: float = 1.0
) -> Tensor:
    r"""The class ``(n,)`` that each region is asked for.

    .. math:: \arg\max_c\; f_c \, \mathrm{softmax}(\tau [u \cdot t_c ; -1])_c

    with :math:`f_c` = ``factor`` for novel classes and 1 for others. Neither the constant column
    nor the denominator changes which is largest, so that neither is computed.

    Args:
        similarities: ``(n, C)`` cosines of regions and texts.
        temperature: :math:`\tau`; 100 in the official code.
        novel: ``(C,)`` bool.
        factor: Of the probability of novel classes, in testing (OV-COCO 3, OV-LVIS 8).
    """
    logits = temperature * similarities
    if novel is not None:
        logits = logits + novel * math.log(factor)
    return logits.argmax(dim=1)


def overlaps_unknown(boxes: Tensor, targets: Targets, threshold: float) -> Tensor:
    """Which queries ``(B, Q)`` start on a pseudo box: IoU above the threshold.

    Args:
        boxes: ``(B, Q, 4)``.
        targets: Of the batch.
        threshold: 0.5 in the official code.
    """
    unknown = [boxes[labels == UNKNOWN] for boxes, labels in targets.pairs]
    counts = torch.tensor([len(found) for found in unknown], device=boxes.device)
    if not int(counts.sum()):
        return torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    image = torch.arange(len(unknown), device=boxes.device)
    corners = box_convert(torch.cat(unknown), "cxcywh", "xyxy")
    overlap = box_iou(box_convert(boxes.flatten(0, 1), "cxcywh", "xyxy"), corners)
    same = image.repeat_interleave(boxes.shape[1])[:, None] == image.repeat_interleave(counts)
    return ((overlap > threshold) & same).any(dim=1).view(boxes.shape[:2])


def rois_of(boxes: Tensor, sizes: Tensor) -> Tensor:
    """RoIs ``(B * Q, 5)`` of boxes ``(B, Q, 4)``: image number, x0, y0, x1, y1 in pixels."""
    corners = box_convert(boxes, "cxcywh", "xyxy") * sizes[:, None]
    image = torch.arange(len(boxes), device=boxes.device).repeat_interleave(boxes.shape[1])
    return torch.cat([image[:, None].to(corners), corners.flatten(0, 1)], dim=1)


def class_scores(similarities: Tensor, temperature: float, objectness: Tensor) -> Tensor:
    r"""Scores ``(n, C + 1)`` of boxes; the last column is what belongs to no class.

    .. math:: s_c = \mathrm{softmax}(\tau [u \cdot t_c ; 0])_c \; \sigma(o)

    Args:
        similarities: ``(n, C)`` cosines of the final boxes' regions and the texts.
        temperature: 100 in the official code (``eval_tau``).
        objectness: ``(n,)``: :math:`\sigma(o)`, probabilities.
    """
    zero = similarities.new_zeros(len(similarities), 1)
    probabilities = torch.cat([temperature * similarities, zero], dim=1).softmax(dim=1)
    return probabilities.mul_(objectness[:, None])


def by_class(classes: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Queries sorted by class; within one they stay as they were.

    What queries have learned stays in its place: the first one gets the text of the first class.

    Args:
        classes: ``(B, Q)``.
        starts: ``(B, Q, 4)``.
    """
    count = classes.shape[1]
    places = torch.arange(count, device=classes.device)
    order = (classes * count + places).argsort(dim=1)  # ONNX has no stable sort
    return classes.gather(1, order), starts.gather(1, order[..., None].expand(-1, -1, 4))


def cosines(regions: Tensor, text: Tensor) -> Tensor:
    """``(n, C)`` of unit vectors ``(n, D)`` and ``(C, D)``, in float32 under autocast, too."""
    with without_autocast(regions):
        regions = at_least_fp32(regions)
        return regions @ text.to(regions).T
