"""Labels of boxes whose class is unknown, which carry a weight through a pipeline.

The transforms of a pipeline keep, drop, reorder and join boxes together with their labels, and
know of nothing else that belongs to a box. There a box of unknown class with the weight w has the
label ``-1 - round(w * 2**20)``; the step that packs makes -1 and the weight of it.
"""

from __future__ import annotations

from torch import Tensor

#: Label of a box of unknown class, in what a model gets.
UNKNOWN = -1
#: Weights are told apart in steps of 1e-6.
_STEPS = 2**20


def label_of(weight: float) -> int:
    """Label that stands for an unknown box of this weight (0..1) in a pipeline."""
    return UNKNOWN - round(weight * _STEPS)


def labels_and_weights(labels: Tensor) -> tuple[Tensor, Tensor]:
    """What a model gets for the labels (n,) of a pipeline.

    Returns:
        Labels (n,), -1 for each unknown box, and weights (n,) float32, 1 for all others.
    """
    unknown = labels < 0
    weights = (UNKNOWN - labels).float() / _STEPS
    return labels.clamp(min=UNKNOWN), weights.masked_fill(~unknown, 1.0)
