"""Pieces shared by the layers of CAT-Seg's aggregator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Recompute = Literal["none", "cheap", "full"]
RECOMPUTE = ("none", "cheap", "full")
T = TypeVar("T")


def recomputed(function: Callable[..., T], *args: object, when: bool) -> T:
    """Call ``function(*args)``; with ``when``, drop its activations and recompute them in backward.

    The values and gradients are those of a plain call. Only what the backward pass needs is run
    again: a trailing linear layer or convolution, whose output nobody saved, is not.
    """
    if when and torch.is_grad_enabled():
        result: T = checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)
        return result
    return function(*args)


class Mlp(nn.Module):
    """``fc2(act(fc1(x)))`` on the last axis."""

    def __init__(self, dim: int, hidden_dim: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """``(..., dim) -> (..., dim)``."""
        return self.fc2(self.activation(self.fc1(x)))


def channels_first(maps: Tensor) -> Tensor:
    """``(B, T, h, w, C)`` -> ``(B T, C, h, w)`` without a copy (the result is channels_last)."""
    return maps.flatten(0, 1).permute(0, 3, 1, 2)


def channels_last(maps: Tensor, batch: int) -> Tensor:
    """``(B T, C, h, w)`` -> ``(B, T, h, w, C)``; free when the input is channels_last."""
    return maps.permute(0, 2, 3, 1).unflatten(0, (batch, -1))
