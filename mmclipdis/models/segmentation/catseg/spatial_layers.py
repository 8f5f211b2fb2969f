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

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmclipdis.models.segmentation.catseg.common import Mlp, recomputed


def _segments(length: int, window: int, shifted: bool) -> list[tuple[int, int]]:
    """Cut ``[0, length)`` into windows; a shifted cut starts with half a window."""
    first = window // 2 if shifted else window
    if length <= window or first == 0:
        # As in Swin, an axis that fits into one window is neither cut nor shifted.
        first = min(window, length)
    cuts = [0, *range(first, length, window), length]
    return list(pairwise(cuts))


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


@lru_cache(maxsize=32)
def window_order(
    shape: tuple[int, int, int, int], window: int, shifted: bool, device: torch.device
) -> WindowOrder:
    """The :class:`WindowOrder` of these arguments, made once."""
    with torch.inference_mode(False):  # or else training could not save what a test left here
        return WindowOrder(shape, window, shifted, device)


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
        """``(..., G) -> (..., 3 dim)``: what the guidance and the biases add to ``[q, k, v]``."""
        weight = torch.cat([self.q.weight[:, self.dim :], self.k.weight[:, self.dim :]])
        guided = F.linear(guidance, weight, torch.cat([self.q.bias, self.k.bias]))
        return torch.cat([guided, self.v.bias.expand(*guided.shape[:-1], -1)], dim=-1)

    def forward(
        self, rows: Tensor, norm: nn.LayerNorm, term: Tensor, order: WindowOrder, recompute: bool
    ) -> Tensor:
        """Attend inside each window.

        Args:
            rows: Features sorted by window, ``(rows, dim)``.
            norm: Normalises them; here, so that its output need not be kept.
            term: :meth:`guidance_term` of each image in grid order, ``(B, h w, 3 dim)``.
            order: The order of ``rows``.
            recompute: Recompute the normalised features in the backward pass.

        Returns:
            ``(rows, dim)``.
        """
        batch, classes = order.shape[:2]
        weight = torch.cat(
            [self.q.weight[:, : self.dim], self.k.weight[:, : self.dim], self.v.weight]
        )

        def project(part: Tensor) -> Tensor:
            return F.linear(norm(part), weight)

        outputs = []
        for group, part in zip(order.groups, rows.split(order.rows), strict=True):
            windows, length = group.shape
            part = part.view(windows, batch, classes, length, -1)
            qkv = recomputed(project, part, when=recompute)
            qkv = qkv + term[:, group].transpose(0, 1).unsqueeze(2)  # broadcast over the classes
            qkv = qkv.view(-1, length, 3, self.num_heads, self.dim // self.num_heads)
            query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (windows B T, heads, length, head dim)
            out = F.scaled_dot_product_attention(query, key, value)
            outputs.append(self.proj(out.transpose(1, 2).reshape(-1, self.dim)))
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


class GuidedWindowBlock(nn.Module):
    """Pre-norm Swin block: ``x += attn(LN x, g)``, ``x += MLP(LN x)`` with GELU."""

    def __init__(self, dim: int, guidance_dim: int, num_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = GuidedWindowAttention(dim, guidance_dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, mlp_ratio * dim, F.gelu)

    def forward(
        self, maps: Tensor, term: Tensor, window: int, shifted: bool, recompute: bool
    ) -> Tensor:
        """``maps`` (B, T, h, w, dim), ``term`` (B, h w, 3 dim) -> (B, T, h, w, dim)."""
        batch, classes, height, width, _ = maps.shape
        order = window_order((batch, classes, height, width), window, shifted, maps.device)
        rows = order.sort(maps)
        rows = rows + self.attn(rows, self.norm1, term, order, recompute)
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

    def guidance_terms(self, guidance: Tensor) -> list[Tensor]:
        """What the guidance adds to queries, keys and values of every block, for all classes.

        Args:
            guidance: Appearance guidance ``(B, h, w, guidance_dim)``, not yet normalised.

        Returns:
            ``(B, h w, 3 dim)`` for each block.
        """
        tokens = self.guidance_norm(guidance).flatten(1, 2)  # (B, h w, G)
        blocks = cast(list[GuidedWindowBlock], self.blocks)
        return [block.attn.guidance_term(tokens) for block in blocks]

    def forward(self, maps: Tensor, terms: Sequence[Tensor], recompute: bool = False) -> Tensor:
        """Aggregate over positions.

        Args:
            maps: Class maps ``(B, T, h, w, dim)``.
            terms: :meth:`guidance_terms`.
            recompute: Recompute normalised features and the MLPs' hidden activations in the
                backward pass.

        Returns:
            Class maps of the same shape.
        """
        for number, (block, term) in enumerate(zip(self.blocks, terms, strict=True)):
            maps = block(maps, term, self.window_size, number % 2 == 1, recompute)
        return maps
