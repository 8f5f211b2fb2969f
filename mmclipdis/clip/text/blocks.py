"""What a text transformer computes: blocks, causal or not, the mean and the projection."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from mmclipdis.clip.towers.attention import finish_block, split_heads
from mmclipdis.clip.towers.blocks import project, view_of


def projected(text: Any, pooled: Tensor) -> Tensor:
    """``pooled`` ``(N, D)`` behind the projection, a matrix, a layer with bias or none."""
    projection = text.text_projection
    if projection is None:
        return pooled
    if isinstance(projection, nn.Linear):
        return projection(pooled)  # type: ignore[no-any-return]
    return pooled @ projection  # type: ignore[no-any-return]


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Mean of ``x`` ``(N, L, D)`` over the places that are ``valid`` ``(N, L)``: ``(N, D)``."""
    weights = valid.to(x.dtype)[..., None]
    return (x * weights).sum(1) / (weights.sum(1) + 1e-8)


def run_block(
    block: ResidualAttentionBlock, x: Tensor, causal: bool, valid: Tensor | None
) -> Tensor:
    """One block: ``(N, L, D)`` to ``(N, L, D)``; keys that are not ``valid`` ``(N, L)`` are unseen.

    A tower is causal or has such keys, never both.
    """
    return _attended(block, x, project(block.attn, block.ln_1(x), "qkv"), valid, causal)


def run_block_at(
    block: ResidualAttentionBlock, x: Tensor, end: Tensor, causal: bool, valid: Tensor | None
) -> Tensor:
    """Row ``end`` of a block: ``(N, L, D)`` and ``(N,)`` to ``(N, D)``."""
    rows = torch.arange(len(x), device=x.device)
    normed = block.ln_1(x)
    parts = project(block.attn, normed, "kv")
    parts |= project(block.attn, normed[rows, end][:, None], "q")
    if causal:
        valid = torch.arange(x.shape[1], device=x.device) <= end[:, None]  # (N, L)
    return _attended(block, x[rows, end][:, None], parts, valid)[:, 0]


def _attended(
    block: ResidualAttentionBlock,
    x: Tensor,
    parts: dict[str, Tensor],
    valid: Tensor | None,
    causal: bool = False,
) -> Tensor:
    """What a block makes of its rows ``x`` ``(N, R, D)``, whose ``q`` is among ``parts``."""
    q, k, v = (split_heads(parts[name], block.attn.num_heads) for name in "qkv")
    mask = None if valid is None else valid[:, None, None]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    out = view_of(block).merge(out.transpose(1, 2).flatten(2))
    return finish_block(block, x, out, residual="token", ffn=True)
