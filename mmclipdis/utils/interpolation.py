"""Resizing with antialias where PyTorch's own goes wrong."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def antialiased(maps: Tensor, size: Sequence[int], mode: str = "bicubic") -> Tensor:
    """Maps ``(B, C, h, w)`` at another ``size`` (height, width), antialiased, half-pixel centres.

    PyTorch's ``interpolate(..., antialias=True)`` mixes up the rows of an output of one column
    (2.11 on the CPU: off by more than the amplitude). Such maps are resized lying on their side,
    which is the same thing, since the filter is separable.

    Args:
        maps: Floats.
        size: Of the result, in pixels or patches.
        mode: ``"bicubic"`` (with antialias: a = -0.5, even where the map grows) or ``"bilinear"``.
    """
    height, width = size
    if width == 1:
        lying = F.interpolate(
            maps.mT, (width, height), mode=mode, align_corners=False, antialias=True
        )
        return lying.mT
    return F.interpolate(maps, (height, width), mode=mode, align_corners=False, antialias=True)
