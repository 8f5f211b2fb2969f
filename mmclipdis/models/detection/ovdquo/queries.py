"""What OV-DQUO's queries ask for: a class each, by CLIP's word about the region they start from.

Boxes are (cx, cy, w, h) in 0..1 of the photo, without what it was padded with, unless said
otherwise.
Source: OV-DQUO (AAAI 2025), section "Region query selection" and its code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou


@dataclass
class Targets:
    """What a batch is trained on, image after image.

    Attributes:
        boxes: Per image ``(G, 4)``.
        classes: Per image ``(G,)``: place among the classes of this iteration, ``M`` for boxes of
            the wildcard (pseudo boxes of unknown things).
        weights: Per image ``(G,)``: how sure a box is that of a thing; 1 for real ones.
        sampled: ``(M,)``, the classes of this iteration, places in the vocabulary.
        dropped: How many real boxes are left out since their class is none of these.
    """

    boxes: list[Tensor]
    classes: list[Tensor]
    weights: list[Tensor]
    sampled: Tensor
    dropped: int = 0

    @property
    def wildcard(self) -> int:
        """``M``, the class of boxes that have none."""
        return len(self.sampled)


def image_sizes(samples: Sequence[Any], device: torch.device) -> Tensor:
    """``(B, 4)``: width, height, width, height in pixels of the photos as the model sees them."""
    sizes = [sample.img_shape[:2][::-1] for sample in samples]
    return torch.tensor(sizes, dtype=torch.float32, device=device).repeat(1, 2)


def make_targets(
    samples: Sequence[Any], trained: Tensor, most: int, device: torch.device
) -> Targets:
    """Targets of a batch.

    Args:
        samples: With ``gt_instances``: ``bboxes`` (G, 4), x0, y0, x1, y1 in pixels; ``labels``
            (G,), -1 for a pseudo box; perhaps ``weights`` (G,).
        trained: ``(K,)`` bool: the classes that may be asked for beside those of the batch.
        most: Most classes an iteration (:func:`sample_classes`).
        device: Of the targets.
    """
    truth = [sample.gt_instances for sample in samples]
    labels = [found.labels.to(device) for found in truth]
    sampled = sample_classes(torch.cat(labels), trained.to(device), most)
    place = torch.full((len(trained) + 1,), -1, device=device)  # the last one is that of -1
    place[sampled] = torch.arange(len(sampled), device=device)
    place[-1] = len(sampled)
    sizes = image_sizes(samples, device)
    targets = Targets([], [], [], sampled)
    for found, label, size in zip(truth, labels, sizes, strict=True):
        boxes = getattr(found.bboxes, "tensor", found.bboxes).to(sizes)
        weights = found.get("weights", torch.ones_like(label, dtype=torch.float32))
        classes = place[label]
        kept = classes >= 0
        targets.boxes.append((box_convert(boxes, "xyxy", "cxcywh") / size)[kept])
        targets.classes.append(classes[kept])
        targets.weights.append(weights.to(sizes)[kept])
        targets.dropped += int((~kept).sum())
    return targets


def sample_classes(labels: Tensor, trained: Tensor, most: int) -> Tensor:
    """The classes of an iteration, ascending: those of the batch, filled up with random others.

    Args:
        labels: ``(G,)`` of all boxes of the batch; below zero those that have no class.
        trained: ``(K,)`` bool, what may be filled up with.
        most: How many at most. If the batch has more, a random choice of them is left out.

    Returns:
        ``(M,)`` places in the vocabulary.
    """
    present = labels[labels >= 0].unique()
    if len(present) < most:
        others = trained.clone()
        others[present] = False
        rest = others.nonzero()[:, 0]
        if len(present) + len(rest) > most:  # random numbers only where there is a choice
            rest = rest[_shuffled(len(rest))[: most - len(present)]]
        present = torch.cat([present, rest])
    elif len(present) > most:
        present = present[_shuffled(len(present))[:most]]
    return present.sort().values


def _shuffled(count: int) -> Tensor:
    return torch.randperm(count)  # of the CPU's generator on every device, which is resumed


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
    if novel is not None and factor != 1:
        logits = logits + novel * torch.tensor(factor, device=logits.device).log()
    return logits.argmax(dim=1)


def overlaps_unknown(boxes: Tensor, targets: Targets, threshold: float) -> Tensor:
    """Which queries ``(B, Q)`` start on a pseudo box: IoU above the threshold.

    Args:
        boxes: ``(B, Q, 4)``.
        targets: Of the batch.
        threshold: 0.5 in the official code.
    """
    unknown = [
        found[classes == targets.wildcard] for found, classes in zip(targets.boxes, targets.classes)
    ]
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
