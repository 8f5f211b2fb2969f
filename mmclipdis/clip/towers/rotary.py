"""Rotary positions of patches, as the code of each family has them (encoders spec 2.4).

* EVA02-CLIP: every grid spans the positions of the native one (:func:`rotary_table`).
* Perception Encoder: columns first, then rows, from 1 (from 0 without CLS); a larger grid counts on
  (:func:`counted_table`; timm would shrink it to the native grid).
* DINOv3: from -1 to 1 along each axis, whatever the grid (:func:`spanning_table`; timm's own takes
  the grid of an export's example for the only one).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from timm.layers import RotaryEmbeddingCat, RotaryEmbeddingDinoV3, build_rotary_pos_embed
from torch import Tensor

from mmclipdis.utils.interpolation import is_symbol


def is_known(rope: Any) -> bool:
    """Whether :func:`rotary_of` takes this module of timm."""
    if isinstance(rope, RotaryEmbeddingDinoV3):
        counted = rope.grid_offset == 0 and rope.grid_indexing == "ij"
        return counted and rope.normalize_coords == "separate" and rope.rotate_half
    return isinstance(rope, RotaryEmbeddingCat) and not rope.in_pixels


def rotary_of(rope: Any, grid: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """The table ``(h*w, 2 d)`` of a trunk's own rotary positions, sine then cosine, fp32.

    Args:
        rope: timm's module, one that :func:`is_known`.
        grid: Patches (h, w).
        device: Where the table lives.
    """
    if isinstance(rope, RotaryEmbeddingDinoV3):
        periods: Any = rope.periods
        return spanning_table(grid, periods.to(device))
    if rope.grid_indexing == "ij" and rope.grid_offset == 0 and rope.ref_feat_shape:
        # an export for any image size has symbols, which no cache can look up
        table = rotary_table.__wrapped__ if is_symbol(*grid) else rotary_table
        return table(grid, rope.dim, tuple(rope.ref_feat_shape), rope.temperature, device)
    counted = counted_table.__wrapped__ if is_symbol(*grid) else counted_table
    return counted(grid, rope.dim, rope.grid_offset, rope.grid_indexing, rope.temperature, device)


@lru_cache(maxsize=16)
def rotary_table(
    grid: tuple[int, int],
    dim: int,
    reference: tuple[int, int],
    temperature: float = 10000.0,
    device: torch.device | None = None,
) -> Tensor:
    """Sine and cosine of 2-D rotary positions, fp32, of the last few grids (declip spec 4.4).

    Args:
        grid: Patches (h, w).
        dim: Width of a head.
        reference: Patches (h, w) that positions are scaled to: row ``y`` lies at ``y r_h / h``.
        temperature: Base of the frequencies.
        device: Where the table lives.

    Returns:
        ``(h*w, 2 dim)``, sine then cosine; its first half turns by rows, its second by columns.
    """
    more = dict(temperature=temperature, ref_feat_shape=list(reference), device=device)
    return _joined(grid, dim, more)


@lru_cache(maxsize=16)
def counted_table(
    grid: tuple[int, int],
    dim: int,
    offset: float = 1.0,
    indexing: str = "xy",
    temperature: float = 10000.0,
    device: torch.device | None = None,
) -> Tensor:
    """The same of patches that are counted on from ``offset`` (PE), whatever the native grid.

    Returns:
        ``(h*w, 2 dim)``, sine then cosine; with ``xy`` its first half turns by columns.
    """
    more = dict(temperature=temperature, grid_offset=offset, grid_indexing=indexing, device=device)
    return _joined(grid, dim, more)


@torch.no_grad()
def spanning_table(grid: tuple[int, int], periods: Tensor) -> Tensor:
    """The same of patches that span -1 to 1 along each axis, whatever the grid (DINOv3).

    Args:
        grid: Patches (h, w).
        periods: ``(d/4,)``, where the table lives.

    Returns:
        ``(h*w, 2 d)``, sine then cosine; in each half rows, then columns.
    """

    def axis(length: int) -> Tensor:
        places = torch.arange(length, device=periods.device).float() + 0.5  # as DINOv3's code
        count = places[-1] + 0.5  # a tensor: exports take a number for a constant
        return (2 * (places / count) - 1).to(periods)

    rows, columns = (2 * math.pi * axis(side)[:, None] / periods for side in grid)
    shape = (*grid, len(periods))
    angles = torch.cat([rows[:, None].expand(shape), columns.expand(shape)], dim=-1).flatten(0, 1)
    return torch.cat([angles.sin().repeat(1, 2), angles.cos().repeat(1, 2)], dim=-1)


def _joined(grid: tuple[int, int], dim: int, more: dict[str, Any]) -> Tensor:
    # An inference tensor in the cache would break the next training step.
    with torch.inference_mode(False), torch.no_grad():
        return torch.cat(
            build_rotary_pos_embed(list(grid), dim=dim, in_pixels=False, **more), dim=-1
        )
