"""Spatial aggregation of CAT-Seg: guided Swin attention inside each class map.

The reference repeats the guidance for every class, normalises and concatenates it, shifts the maps
cyclically and masks what the shift glued together. None of that is needed:

* ``W [n, g] = W_n n + W_g g``, and ``W_g g`` is the same for all classes: computed once per image;
* a window that the cyclic shift glued together and the mask cut apart again *is* several smaller
  windows, so a shifted block is a plain block whose first and last windows are cut at the border.
  This needs no roll and no mask, attends to fewer pairs, and works on any grid. (The mask of the
  reference is -100 and not -inf: the difference is a weight of about ``exp(-100)``.)
* tokens are sorted by window once per block, so every attention call reads contiguous memory.

Source: CAT-Seg (CVPR 2024), section 3.3 and the released code.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmclipdis.models.segmentation.catseg_common import Mlp, recomputed


def _segments(length: int, window: int, shifted: bool) -> list[tuple[int, int]]:
    """Cut ``[0, length)`` into windows; a shifted cut starts with half a window."""
    first = window // 2 if shifted else window
    if length <= window or first == 0:
        # As in Swin, an axis that fits into one window is neither cut nor shifted.
        first = min(window, length)
    cuts = [0, *range(first, length, window), length]
    return list(pairwise(cuts))


@lru_cache(maxsize=64)
def window_groups(grid: tuple[int, int], window: int, shifted: bool) -> tuple[Tensor, ...]:
    """Partition the tokens of a grid into attention windows.

    Args:
        grid: Height and width of a class map in tokens. Any size: windows are cut at the border.
        window: Side of a window in tokens.
        shifted: Whether the cuts are moved by half a window, as in every second Swin block.

    Returns:
        Groups of equally large windows, largest first, each ``(windows, tokens per window)`` with
        row-major token numbers. Together they hold every token once.
    """
    height, width = grid
    index = torch.arange(height * width).view(height, width)
    by_size: dict[int, list[Tensor]] = {}
    for top, bottom in _segments(height, window, shifted):
        for left, right in _segments(width, window, shifted):
            tokens = index[top:bottom, left:right].reshape(-1)
            by_size.setdefault(tokens.numel(), []).append(tokens)
    return tuple(torch.stack(by_size[size]) for size in sorted(by_size, reverse=True))


class _Reorder(torch.autograd.Function):
    """Row permutation whose backward is the inverse permutation instead of a scatter-add."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(index, inverse)
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        index, inverse = ctx.saved_tensors
        return _Reorder.apply(grads[0], inverse, index), None, None


class WindowOrder:
    """Moves ``(B, T, h, w, C)`` maps to rows sorted by window, and back.

    Rows hold one block per group of :func:`window_groups`, each ``(windows, B, T, tokens)``
    flattened.

    Args:
        shape: ``(B, T, h, w)`` of the maps.
        window: Side of a window in tokens.
        shifted: See :func:`window_groups`.
        device: Where the maps live.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        window: int,
        shifted: bool,
        device: torch.device,
    ) -> None:
        batch, classes, height, width = shape
        self.shape = shape
        self.groups = [g.to(device) for g in window_groups((height, width), window, shifted)]
        first = torch.arange(batch * classes, device=device).view(1, -1, 1) * (height * width)
        index = [(group[:, None] + first).reshape(-1) for group in self.groups]
        self.rows = [len(part) for part in index]
        self.index = torch.cat(index)
        self.inverse = torch.empty_like(self.index)
        self.inverse[self.index] = torch.arange(len(self.index), device=device)

    def sort(self, maps: Tensor) -> Tensor:
        """``(B, T, h, w, C)`` -> ``(rows, C)``, window by window."""
        rows: Tensor = _Reorder.apply(maps.reshape(-1, maps.shape[-1]), self.index, self.inverse)
        return rows

    def restore(self, rows: Tensor) -> Tensor:
        """Inverse of :meth:`sort`."""
        maps: Tensor = _Reorder.apply(rows, self.inverse, self.index)
        return maps.view(*self.shape, rows.shape[-1])


class GuidedWindowAttention(nn.Module):
    """Window attention whose queries and keys also see a per-image guidance.

    ``q, k = W [x, g] + b``, ``v = W x + b``; the first ``dim`` columns of the query and key weights
    belong to the class features, the others to the guidance (names and shapes of the reference).
    """

    def __init__(self, dim: int, guidance_dim: int, num_heads: int) -> None:
        super().__init__()
        self.dim, self.num_heads = dim, num_heads
        self.q = nn.Linear(dim + guidance_dim, dim)
        self.k = nn.Linear(dim + guidance_dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def guidance_term(self, guidance: Tensor) -> Tensor:
        """``(..., G) -> (..., 2 dim)``: what the guidance and the biases add to ``[q, k]``."""
        weight = torch.cat([self.q.weight[:, self.dim :], self.k.weight[:, self.dim :]])
        return F.linear(guidance, weight, torch.cat([self.q.bias, self.k.bias]))

    def forward(self, rows: Tensor, term: Tensor, order: WindowOrder) -> Tensor:
        """Attend inside each window.

        Args:
            rows: Normalised features sorted by window, ``(rows, dim)``.
            term: :meth:`guidance_term` of each image in grid order, ``(B, h w, 2 dim)``.
            order: The order of ``rows``.

        Returns:
            ``(rows, dim)``.
        """
        batch, classes = order.shape[:2]
        weight = torch.cat([self.q.weight[:, : self.dim], self.k.weight[:, : self.dim]])
        qk_rows = F.linear(rows, weight).split(order.rows)
        v_rows = self.v(rows).split(order.rows)
        outputs = []
        for group, qk, v in zip(order.groups, qk_rows, v_rows, strict=True):
            windows, length = group.shape
            qk = qk.view(windows, batch, classes, length, -1)
            qk = qk + term[:, group].transpose(0, 1).unsqueeze(2)  # broadcast over the classes
            qk = qk.view(-1, length, 2, self.num_heads, self.dim // self.num_heads)
            query, key = qk.permute(2, 0, 3, 1, 4)  # (windows B T, heads, length, head dim) each
            value = v.view(-1, length, self.num_heads, qk.shape[-1]).transpose(1, 2)
            out = F.scaled_dot_product_attention(query, key, value)
            outputs.append(out.transpose(1, 2).reshape(-1, self.dim))
        return self.proj(torch.cat(outputs) if len(outputs) > 1 else outputs[0])


class GuidedWindowBlock(nn.Module):
    """Pre-norm Swin block: ``x += attn(LN x, g)``, ``x += MLP(LN x)`` with GELU."""

    def __init__(self, dim: int, guidance_dim: int, num_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = GuidedWindowAttention(dim, guidance_dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, mlp_ratio * dim, F.gelu)

    def forward(
        self,
        maps: Tensor,
        guidance: Tensor,
        window: int,
        shifted: bool,
        recompute: bool,
    ) -> Tensor:
        """``maps`` (B, T, h, w, dim), ``guidance`` (B, h w, G) -> (B, T, h, w, dim)."""
        batch, classes, height, width, _ = maps.shape
        order = WindowOrder((batch, classes, height, width), window, shifted, maps.device)
        rows = order.sort(maps)
        term = self.attn.guidance_term(guidance)
        rows = rows + self.attn(self.norm1(rows), term, order)
        rows = rows + recomputed(self._mlp, rows, when=recompute)
        return order.restore(rows)

    def _mlp(self, rows: Tensor) -> Tensor:
        return self.mlp(self.norm2(rows))


class SpatialAggregation(nn.Module):
    """One plain and one shifted :class:`GuidedWindowBlock`, independently for every class.

    Args:
        dim: Channels of the class maps.
        guidance_dim: Channels of the appearance guidance, 0 for none.
        num_heads: Attention heads.
        window_size: Side of a window in tokens.
        mlp_ratio: Hidden width of the MLP over ``dim``.
    """

    def __init__(
        self,
        dim: int,
        guidance_dim: int,
        num_heads: int,
        window_size: int,
        mlp_ratio: int = 4,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.guidance_norm = nn.LayerNorm(guidance_dim)
        self.blocks = nn.ModuleList(
            GuidedWindowBlock(dim, guidance_dim, num_heads, mlp_ratio) for _ in range(2)
        )

    def forward(self, maps: Tensor, guidance: Tensor, recompute: bool = False) -> Tensor:
        """Aggregate over positions.

        Args:
            maps: Class maps ``(B, T, h, w, dim)``.
            guidance: Appearance guidance ``(B, h, w, guidance_dim)``, not yet normalised.
            recompute: Recompute the MLPs' hidden activations in the backward pass.

        Returns:
            Class maps of the same shape.
        """
        tokens = self.guidance_norm(guidance).flatten(1, 2)  # (B, h w, G), once for all classes
        for number, block in enumerate(self.blocks):
            shifted = number % 2 == 1
            maps = block(maps, tokens, self.window_size, shifted, recompute)
        return maps
