"""Resizing with antialias where PyTorch's own goes wrong, and to sizes that are not known yet.

While a program is exported for any image size, sizes are symbols. Resizing is then a product with a
matrix along each axis, whose entries are computed from the sizes when the program runs: what
PyTorch's own does with them the exporters translate inexactly, or take for a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Mode = Literal["bilinear", "bicubic", "antialias", "bilinear_antialias"]


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


def is_symbol(*sizes: object) -> bool:
    """Whether one of the sizes is a symbol, which an export keeps open."""
    return any(isinstance(size, torch.SymInt) for size in sizes)


def known_size(size: int) -> int:
    """A size as an int (under ``torch.jit.trace`` it is a tensor), or the symbol that it is."""
    return size if is_symbol(size) else int(size)


def by_products(maps: Tensor, size: Sequence[int], mode: Mode, more: float = 0.0) -> Tensor:
    """Resize maps ``(..., h, w)`` to ``size`` as ``R_y M R_x^T``; sizes may be symbols.

    Equal, to rounding, to ``F.interpolate`` with half-pixel centres.

    Args:
        maps: Of float32 or wider.
        size: (height, width) of the result.
        mode: ``bilinear``; ``bicubic`` (a = -0.75); ``antialias``, bicubic with it (a = -0.5);
            ``bilinear_antialias``.
        more: As with ``scale_factor = (size + more) / (h, w)``, unless the size stays as it is.
    """
    old = [_places(length, maps) for length in maps.shape[-2:]]
    new = [_places(length, maps) for length in size]
    lengths = [_length(places) for places in new]
    if more:
        stays = [have == _length(places) for have, places in zip(lengths, old)]
        extra = more * (~(stays[0] & stays[1])).to(maps)
        lengths = [length + extra for length in lengths]
    factors = [_length(places) / length for places, length in zip(old, lengths)]
    rows, columns = (_weights(*axis, mode) for axis in zip(new, old, factors))
    if mode == "bicubic":  # beyond the border lies what is at the border
        maps = F.pad(maps, (2, 2, 2, 2), mode="replicate")
    return rows @ maps @ columns.T


def _places(length: int, like: Tensor) -> Tensor:
    return torch.arange(length, device=like.device).to(like.dtype)


def _length(places: Tensor) -> Tensor:
    """How many they are, as a tensor: an export would take a number for a constant."""
    return places[-1] + 1


def _weights(new: Tensor, old: Tensor, factor: Tensor, mode: Mode) -> Tensor:
    """Weights (n, m) of the places of the source in those of the result.

    For ``bicubic`` (n, m + 4), with two more places at each end.
    """
    centres = (new + 0.5) * factor - 0.5
    if mode == "bilinear":
        inside = torch.minimum(centres.clamp(min=0), old[-1])
        return (1 - (inside[:, None] - old).abs()).clamp(min=0)
    if mode in ("antialias", "bilinear_antialias"):
        apart = (centres[:, None] - old) / factor.clamp(min=1)
        weights = _cubic(apart, -0.5) if mode == "antialias" else (1 - apart.abs()).clamp(min=0)
        return weights / weights.sum(dim=1, keepdim=True)
    wider = torch.cat([old[:1] - 2, old[:1] - 1, old, old[-1:] + 1, old[-1:] + 2])
    return _cubic(centres[:, None] - wider, -0.75)


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Keys' cubic kernel, 0 from 2 on."""
    x = distance.abs().clamp(max=2)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, far)
