"""The samples of multi-label recognition: what is known of an image, what a model says of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor


def targets(samples: Sequence[Any], num_classes: int, device: torch.device) -> Tensor:
    """Labels (B, N) float32 in {0, 1, -1 unknown}, of ``gt_score`` or else of ``gt_label``.

    Args:
        samples: One an image, with ``gt_score`` (N,), or with indices ``gt_label`` of the classes
            that are present (all others are absent).
        num_classes: N.
        device: Of the result.

    Raises:
        ValueError: neither, labels of another number of classes, or an index that is no class; with
            the image file.
    """
    rows = [_target(sample, num_classes) for sample in samples]
    return torch.stack(rows).to(device) if rows else torch.zeros(0, num_classes, device=device)


def attach(
    samples: Sequence[Any] | None, logits: Tensor, scores: Tensor, owner: str
) -> list[BaseDataElement]:
    """Write ``pred_logit`` and ``pred_score``, float32 (N,), to the samples.

    Args:
        samples: One an image; None makes new ones.
        logits: (B, N), what classes and images are ranked by.
        scores: (B, N), in [0, 1].
        owner: The model, for the message.

    Raises:
        ValueError: NaN or infinite logits, with the image files.
    """
    filled = [BaseDataElement() for _ in logits] if samples is None else list(samples)
    wrong = (~logits.isfinite()).any(dim=1).tolist()
    if any(wrong):
        files = [_file(sample) for sample, bad in zip(filled, wrong, strict=True) if bad]
        raise ValueError(
            f"{owner} gives logits that are NaN or infinite for {', '.join(files[:3])}: the "
            "weights are broken, or half precision overflowed; take an earlier checkpoint, or fp32"
        )
    for sample, logit, score in zip(filled, logits.float(), scores.float(), strict=True):
        sample.pred_logit = logit
        sample.pred_score = score
    return filled


def _target(sample: Any, num_classes: int) -> Tensor:
    score = sample.get("gt_score")
    if score is not None:
        if score.shape != (num_classes,):
            raise ValueError(
                f"gt_score of {_file(sample)} labels {tuple(score.shape)} classes, the model knows "
                f"{num_classes}: vocabulary and data set must have the same classes"
            )
        return score.float()
    label = sample.get("gt_label")
    if label is None:
        raise ValueError(
            f"the sample of {_file(sample)} has no gt_score: end the pipeline with "
            "dict(type='PackMultiLabelInputs')"
        )
    label = torch.as_tensor(label, dtype=torch.long).flatten()
    wrong = label[(label < 0) | (label >= num_classes)]
    if len(wrong):
        raise ValueError(
            f"gt_label of {_file(sample)} names class {int(wrong[0])}, the classes are 0.."
            f"{num_classes - 1}: vocabulary and data set must have the same classes"
        )
    return torch.zeros(num_classes, device=label.device).index_fill_(0, label, 1.0)


def _file(sample: Any) -> str:
    return str(sample.get("img_path") or "an image without img_path")
