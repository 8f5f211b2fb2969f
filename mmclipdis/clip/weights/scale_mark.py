"""Scale and bias of the logits, saved beside the weights of a text encoder that is asked for them.

They lie in the file that the weights were loaded from, and a checkpoint of a run must do without
that file (entry ``scale``: the factor, and the bias or nan).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from mmclipdis.clip.weights.marks import remember

MARK = "scale"


def remember_scale(module: nn.Module) -> None:
    """Save ``module.known_scale`` with its weights, if it ``keeps_scale``; loading sets it.

    Args:
        module: Has the attributes ``known_scale``, a pair or None, and ``keeps_scale``.
    """
    remember(module, MARK, _encode, _set)


def _encode(module: Any) -> Tensor | None:
    if not module.keeps_scale or module.known_scale is None:
        return None
    scale, bias = module.known_scale
    return torch.tensor([scale, math.nan if bias is None else bias], dtype=torch.float64)


def _set(module: Any, mark: Tensor, source: str) -> None:
    values = mark.flatten().tolist() if isinstance(mark, Tensor) else []
    if len(values) != 2 or not values[0] > 0:
        raise ValueError(f"{source} holds an entry 'scale' that is no scale and bias: {mark!r:.80}")
    module.known_scale = values[0], None if math.isnan(values[1]) else values[1]
