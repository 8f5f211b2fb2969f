"""The row-stochastic matrix that SAM's last block makes of an image (Trident, ICCV 2025).

With the attention of SAM's last, global block, relative positions included, and the cosines ``C_h``
of its values in head ``h``, token ``i`` keeps the keys of each head whose cosine is above::

    t_i = min(0.9, kappa mean of C_h[i, j] over heads h and keys j)
    G = mean_h(attention_h * [C_h > t_i]), its rows divided by their sums

(training_free_2 spec 6.1). Neither the attention nor ``G`` is ever whole: some rows of the image
are made, used and thrown away, 12 x 4096 x 4096 numbers would be 0.8 GB.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer_sam import Block, VisionTransformerSAM, get_rel_pos
from torch import Tensor, nn

from mmclipdis.clip.towers.affinity import ROW_BYTES

#: The threshold is never above this, so that a token always keeps itself.
MOST = 0.9
#: Where ``refine_neg=False``: the threshold in place of a negative one.
INSTEAD_OF_NEGATIVE = 0.6


def check_sam(model: Any, name: str) -> None:
    """Refuse a model of timm that is no image encoder of SAM.

    Args:
        model: The model.
        name: What the user calls it, for messages.

    Raises:
        ValueError: naming the model and what it is.
    """
    block = model.blocks[-1] if isinstance(model, VisionTransformerSAM) else None
    if not isinstance(block, Block):
        raise ValueError(
            "the matrix of SAM needs SAM's image encoder: model='sam-B', 'sam-L' or a samvit of "
            f"timm; {name!r} is a {type(model).__name__}"
        )
    attn = block.attn
    plain = attn.rope is None and all(
        isinstance(m, nn.Identity) for m in (attn.q_norm, attn.k_norm)
    )
    if block.window_size or not plain:
        raise ValueError(
            f"the matrix of SAM needs a last block that looks at the whole image as SAM's does; "
            f"that of {name!r} has window_size={block.window_size}"
            f"{'' if plain else ' and rotary positions or normalised queries'}: choose "
            "model_kwargs with global_attn_indexes up to the last block"
        )


def sam_matrix(
    attention: Tensor, values: Tensor, kappa: float, refine_neg: bool = True, first: int = 0
) -> Tensor:
    """Rows ``(r, n)`` of ``G``, each of sum 1.

    Args:
        attention: Rows ``(heads, r, n)`` of the softmax attention, of tokens ``first`` and on.
        values: ``(heads, n, d)``.
        kappa: Factor of the mean cosine; 0 keeps what is similar at all.
        refine_neg: Whether a negative threshold stays; otherwise 0.6 takes its place.
        first: The token that the first row is of.

    A row that keeps nothing (its own attention or value is 0) keeps the token itself.
    """
    return _rows(attention, _unit(values), kappa, refine_neg, first)


def _unit(values: Tensor) -> Tensor:
    return F.normalize(values, dim=-1, eps=1e-12)


def _rows(attention: Tensor, unit: Tensor, kappa: float, refine_neg: bool, first: int) -> Tensor:
    own = unit[:, first : first + attention.shape[1]]
    # the mean over keys of cosines is the cosine with the mean key
    threshold = kappa * (own @ unit.mean(dim=1, keepdim=True).mT).mean(dim=0)  # (r, 1)
    if not refine_neg:
        threshold = threshold.masked_fill(threshold < 0, INSTEAD_OF_NEGATIVE)
    kept = own @ unit.mT > threshold.clamp(max=MOST)
    rows = (attention * kept).sum(dim=0)
    total = rows.sum(dim=-1, keepdim=True)
    empty = (total == 0).to(rows.dtype)
    rows.diagonal(offset=first).add_(empty[:, 0])
    return rows / (total + empty)


def sam_mixed(
    block: Any,
    parts: tuple[Tensor, Tensor, Tensor],
    tokens: Tensor,
    kappa: float,
    refine_neg: bool = True,
) -> Tensor:
    """``G A``: tokens mixed by the matrix of SAM's last block.

    Args:
        block: The block.
        parts: Its q, k, v ``(D, H, W)`` of the whole grid, padding right and below included, which
            takes part in the softmax and is cut off behind it.
        tokens: ``(C, h, w)``, on the part of the grid that is the image.
        kappa: See :func:`sam_matrix`.
        refine_neg: See :func:`sam_matrix`.

    Returns:
        ``(C, h, w)`` in the type of ``tokens``.
    """
    attn = block.attn
    height, width = (int(size) for size in tokens.shape[-2:])
    query, key, value = (_heads(part, attn.num_heads) for part in parts)  # (heads, H, W, d)
    query, key = query[:, :height, :width], key.flatten(1, 2)
    unit = _unit(value[:, :height, :width].flatten(1, 2))
    flat = tokens.flatten(1).T.to(unit.dtype)
    grid = (int(parts[1].shape[-2]), int(parts[1].shape[-1]))
    row_bytes = unit.element_size() * attn.num_heads * width * key.shape[1]
    step = max(1, int(ROW_BYTES / row_bytes))
    mixed = []
    down, across = _positions(attn, grid)
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        positions = None if down is None else down[rows]
        attention = _attention(query[:, rows], key, attn.scale, positions, across)
        on_grid = attention.view(*attention.shape[:2], *grid)
        valid = on_grid[..., :height, :width].flatten(-2)
        mixed.append(_rows(valid, unit, kappa, refine_neg, top * width) @ flat)
    return torch.cat(mixed).T.reshape(tokens.shape).to(tokens.dtype)


def _positions(attn: Any, grid: tuple[int, int]) -> tuple[Tensor | None, Tensor | None]:
    """Relative positions ``(H, H, d)`` of rows and ``(W, W, d)`` of columns, of query and key."""
    if not attn.use_rel_pos:
        return None, None
    height, width = grid
    across: Tensor = get_rel_pos(width, width, attn.rel_pos_w)
    return get_rel_pos(height, height, attn.rel_pos_h), across


def _attention(
    query: Tensor, key: Tensor, scale: float, down: Tensor | None, across: Tensor | None
) -> Tensor:
    """Some rows ``(heads, r w, H W)`` of the softmax attention, of an image with w columns.

    Args:
        query: ``(heads, r, w, d)``.
        key: ``(heads, H W, d)``.
        scale: Factor of the logits.
        down: :func:`_positions` of these rows, ``(r, H, d)``.
        across: Those of all columns, ``(W, W, d)``.
    """
    logits = (scale * query.flatten(1, 2)) @ key.mT
    if down is not None and across is not None:  # of the queries as they are, not scaled
        columns = across[: query.shape[2]].to(query)
        by_row = torch.einsum("mywd,ykd->mywk", query, down.to(query))
        by_column = torch.einsum("mywd,wkd->mywk", query, columns)
        spread = logits.view(*by_row.shape, by_column.shape[-1])
        spread += by_row[..., :, None]
        spread += by_column[..., None, :]
    return torch.softmax(logits, dim=-1)


def _heads(part: Tensor, heads: int) -> Tensor:
    """``(heads, H, W, d)`` of ``(heads d, H, W)``."""
    return part.reshape(heads, -1, *part.shape[1:]).permute(0, 2, 3, 1)
