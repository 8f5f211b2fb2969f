"""What a batch of OV-DQUO learns from: boxes of some classes, pseudo boxes of unknown things.

Boxes are (cx, cy, w, h) in 0..1 of the photo, without what it was padded with, unless said
otherwise.
Source: OV-DQUO (AAAI 2025).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor
from torchvision.ops import box_convert

from mmclipdis.utils.unknown_boxes import UNKNOWN


@dataclass
class Targets:
    """What a batch is trained on, image after image.

    Attributes:
        boxes: Per image ``(G, 4)``.
        labels: Per image ``(G,)``: place among the classes of this iteration, -1 for a pseudo box
            (of an unknown thing), whose class is the wildcard.
        weights: Per image ``(G,)``: how sure a box is that of a thing; 1 for real ones.
        sampled: ``(M,)``, the classes of this iteration, places in the vocabulary.
        dropped: How many real boxes are left out since their class is none of these: novel, or one
            more than an iteration may have.
    """

    boxes: list[Tensor]
    labels: list[Tensor]
    weights: list[Tensor]
    sampled: Tensor
    dropped: int = 0

    @property
    def wildcard(self) -> int:
        """``M``, the class of queries for boxes that have none."""
        return len(self.sampled)

    @property
    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Boxes and labels of each image."""
        return list(zip(self.boxes, self.labels, strict=True))


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
        trained: ``(K,)`` bool: the classes that may be learned. Boxes of novel ones, which no data
            set should give, are left out.
        most: Most classes an iteration (:func:`sample_classes`).
        device: Of the targets.

    Raises:
        ValueError: a label that is no class, or a weight outside 0..1.
    """
    truth = [sample.gt_instances for sample in samples]
    labels = [found.labels.to(device) for found in truth]
    _check_labels(labels, len(trained))
    sampled = sample_classes(torch.cat(labels), trained.to(device), most)
    left_out = -2
    place = torch.full((len(trained) + 1,), left_out, device=device)
    place[sampled] = torch.arange(len(sampled), device=device)
    place[UNKNOWN] = UNKNOWN  # the last one
    sizes = image_sizes(samples, device)
    targets = Targets([], [], [], sampled)
    for found, label, size in zip(truth, labels, sizes, strict=True):
        boxes = getattr(found.bboxes, "tensor", found.bboxes).to(sizes)
        weights = found.get("weights", torch.ones_like(label, dtype=torch.float32))
        places = place[label]
        kept = places != left_out
        targets.boxes.append((box_convert(boxes, "xyxy", "cxcywh") / size)[kept])
        targets.labels.append(places[kept])
        targets.weights.append(weights.to(sizes)[kept])
        targets.dropped += len(label) - len(targets.labels[-1])
    _check_weights(torch.cat(targets.weights))
    return targets


def trained_classes(novel: Sequence[bool] | None) -> Tensor:
    """For each class whether it may be learned, ``(K,)``: novel ones may not.

    Raises:
        RuntimeError: nobody has said which classes are novel, or all of them are.
    """
    if novel is None:
        raise RuntimeError(
            "which classes are novel? No query may ask for one in training: set "
            "metainfo=dict(novel_classes=...) on the data set (and run with VocabularyHook), or "
            "novel_classes=... on the bbox_head (() if none is)"
        )
    if all(novel):
        raise RuntimeError(
            f"all {len(novel)} classes are novel, so that none may be learned: leave those with "
            "boxes in training out of novel_classes of the bbox_head or of the data set's metainfo"
        )
    return ~torch.tensor(novel, dtype=torch.bool)


def sample_classes(labels: Tensor, trained: Tensor, most: int) -> Tensor:
    """The classes of an iteration, ascending: those of the batch, filled up with random others.

    Args:
        labels: ``(G,)`` of all boxes of the batch; below zero those that have no class.
        trained: ``(K,)`` bool: False for novel classes, which are never among them.
        most: How many at most. If the batch has more, a random choice of them is left out.

    Returns:
        ``(M,)`` places in the vocabulary.
    """
    present = labels[labels >= 0].unique()
    present = present[trained[present]]
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


def _check_labels(labels: Sequence[Tensor], count: int) -> None:
    every = torch.cat(list(labels))
    wrong = every[(every < UNKNOWN) | (every >= count)]
    if len(wrong):
        raise ValueError(
            f"a box has label {int(wrong[0])}, and the vocabulary has {count} classes: the data "
            "set's classes must be those of the model (pseudo boxes have label -1)"
        )


def _check_weights(weights: Tensor) -> None:
    wrong = weights[~((weights >= 0) & (weights <= 1))]  # NaN, too
    if len(wrong):
        raise ValueError(
            f"a box has the weight {float(wrong[0])} ({len(wrong):,} of {len(weights):,} of the "
            "batch), and weights say from 0 to 1 how surely it is a thing: mend "
            "gt_instances.weights of the data set"
        )


def warn_without_unknowns(samples: Sequence[Any]) -> None:
    """Warn if these images, with which a training begins, are of data without pseudo boxes."""
    if not any("weights" in sample.gt_instances for sample in samples):
        print_log(
            "OVDQUO begins with images of a data set without pseudo boxes of unknown things "
            "(pseudo_boxes of the training data set): in such a batch a single real box is "
            "denoised, and novel things are taught as ground",
            logger="current",
            level=logging.WARNING,
        )
