"""The samples of multi-label recognition: what is known of an image, what a model says of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor


def targets(samples: Sequence[Any], num_classes: int, device: torch.device) -> Tensor:
    """Labels (B, N) float32 in {0, 1, -1 unknown}.

    Args:
        samples: One an image, with ``gt_score`` (N,).
        num_classes: N.
        device: Of the result.

    Raises:
        ValueError: no labels, or those of another number of classes; with the image file.
    """
    rows = [_target(sample, num_classes) for sample in samples]
    return torch.stack(rows).to(device) if rows else torch.zeros(0, num_classes, device=device)


def attach(samples: Sequence[Any] | None, logits: Tensor, scores: Tensor) -> list[BaseDataElement]:
    """Write ``pred_logit`` and ``pred_score``, float32 (N,), to the samples.

    Values that are not finite are written, too; ``MultiLabelMetric`` refuses them.

    Args:
        samples: One an image; None makes new ones.
        logits: (B, N), what classes and images are ranked by.
        scores: (B, N), in [0, 1].
    """
    filled = [BaseDataElement() for _ in logits] if samples is None else list(samples)
    for sample, logit, score in zip(filled, logits.float(), scores.float(), strict=True):
        sample.pred_logit = logit
        sample.pred_score = score
    return filled


def _target(sample: Any, num_classes: int) -> Tensor:
    score = sample.get("gt_score")
    if score is None:
        raise ValueError(
            f"the sample of {_file(sample)} has no gt_score: end the pipeline with "
            "dict(type='PackMultiLabelInputs')"
        )
    if score.shape != (num_classes,):
        raise ValueError(
            f"gt_score of {_file(sample)} labels {tuple(score.shape)} classes, the model knows "
            f"{num_classes}: vocabulary and data set must have the same classes"
        )
    labels: Tensor = score.float()
    return labels


def _file(sample: Any) -> str:
    return str(sample.get("img_path") or "an image without img_path")
