"""Maps of masks: at another size, and with regions that look alike as one.

A map gives every pixel, or token, the number of the mask that it lies in; the smallest number of a
map means "in no mask" (training_free_2 spec 4.1).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

#: The mask of what is no part of the photo, and the first of those that :func:`merge_regions`
#: makes. Numbers of masks are below it.
OUTSIDE = 10_000


def resize_nearest(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps ``(..., h, w)`` at another size: place ``i`` is that of ``floor(i * h / height)``.

    In integers, so that no rounding moves a border; otherwise mode ``nearest`` of torch.
    """
    for axis, length in zip((-2, -1), size, strict=True):
        before = masks.shape[axis]
        if before != length:
            index = torch.arange(length, device=masks.device) * before // length
            masks = masks.index_select(axis, index)
    return masks


def merge_regions(unit: Tensor, regions: Tensor, eps: float) -> Tensor:
    """Give regions whose mean tokens look alike one number, window by window.

    With the unit vectors ``r_a`` of the mean tokens and their cosines ``R``, two regions are one if
    ``max(R) - R_ab <= eps``, or if others link them; ``max(R)`` is over all pairs, each region with
    itself among them, hence 1 but for rounding. Components are numbered in the order of their
    smallest member: ``10000 + component``. Tokens in no mask stay what they are, and so do all of a
    window with two numbers or fewer.

    Args:
        unit: Unit tokens ``(B, n, C)``.
        regions: The region of each, int64 ``(B, n)``.
        eps: Most that a cosine may be below the largest.

    Returns:
        The numbers of the merged regions, int64 ``(B, n)``.

    Source: CorrCLIP (ICCV 2025), where DBSCAN with one sample a core does the same
    (training_free_2 spec 4.2).
    """
    index, counts = places(regions)
    most = int(counts.max())
    if most <= 2:
        return regions
    everyone = torch.arange(most, device=regions.device)
    there = (everyone > 0) & (everyone < counts[:, None])
    with torch.autocast(unit.device.type, enabled=False):  # whose steps are as large as eps
        # A product and no scatter_add, whose order of summation differs from run to run on a GPU.
        belongs = (index[:, None] == everyone[:, None]).to(unit.dtype)
        smallest = _smallest_linked(F.normalize(belongs @ unit, dim=-1, eps=1e-12), there, eps)
    component = ((smallest == everyone) & there).cumsum(dim=1).gather(1, smallest) - 1
    free = regions.amin(dim=1, keepdim=True)
    merged = (free + 1).clamp(min=OUTSIDE) + component.gather(1, index)
    return torch.where((index == 0) | (counts <= 2)[:, None], regions, merged)


def _smallest_linked(means: Tensor, there: Tensor, eps: float) -> Tensor:
    """The smallest region ``(B, K)`` that each is linked to, by chains as well.

    ``means`` ``(B, K, C)`` are unit vectors; what is not ``there`` ``(B, K)`` is linked to itself.
    """
    count = means.shape[1]
    pairs = there[:, :, None] & there[:, None]
    cosines = (means @ means.transpose(1, 2)).masked_fill(~pairs, -torch.inf)
    linked = pairs & (cosines.amax((1, 2), keepdim=True) - cosines <= eps)
    linked = linked | torch.eye(count, dtype=torch.bool, device=means.device)
    for _ in range(math.ceil(math.log2(count))):  # each doubles the length of the chains
        linked = (linked.to(means.dtype) @ linked.to(means.dtype)) > 0
    return torch.where(linked, torch.arange(count, device=means.device), count).amin(dim=-1)


def places(regions: Tensor) -> tuple[Tensor, Tensor]:
    """Which of the numbers of its row each one is, ``(B, n)``, and how many a row has, ``(B,)``."""
    ordered, order = regions.sort(dim=1)
    steps = torch.zeros_like(regions)
    steps[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    rank = steps.cumsum(dim=1)
    return torch.empty_like(regions).scatter_(1, order, rank), rank[:, -1] + 1
