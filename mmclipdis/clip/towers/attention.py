"""The last block of a CLIP tower as pure functions of its weights and a :class:`Readout`.

With ``Y = norm(X)`` and ``q, k, v = Y W_in^T + b_in`` split into heads of width ``d``::

    O = sum over terms of c softmax(s a b^T + g) v  (or v for the term "identity")
    A = merge(O)                                    (W_out; EVA: of a LayerNorm of O)
    U = A + residual;   Z = U + FFN(U) if ffn else U

with ``c = 1`` and ``g = 0`` unless the readout says otherwise. Two terms look beyond the block:
``layers`` has the matrices of other blocks, ``affinity`` that of a guide
(:mod:`mmclipdis.clip.towers.affinity`).

EVA's rotary positions enter the term ``qk`` only. Only the projections a readout needs are
computed, attention never materialises ``L x L`` weights (scaled dot-product attention), and the CLS
query is skipped where nobody reads it. What a block is made of tells
:mod:`mmclipdis.clip.towers.blocks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

from mmclipdis.clip.towers.blocks import BlockView, view_of
from mmclipdis.utils.interpolation import is_symbol

T = TypeVar("T")


def attend(
    terms: Sequence[str],
    parts: dict[str, Tensor],
    scale: float,
    first_query: int = 0,
    rotate: Callable[[Tensor], Tensor] | None = None,
    *,
    factors: Sequence[float] | None = None,
    bias: Tensor | None = None,
    layers: Sequence[tuple[Tensor, Tensor]] = (),
    length: Tensor | None = None,
) -> Tensor:
    """Sum of attention terms, (training_free spec 1.2; SCLIP eq. 4; ClearCLIP eq. 4).

    Args:
        terms: Of ``qk``, ``qq``, ``kk``, ``vv``, ``qkv``, ``gem``, ``identity``, ``layers``.
        parts: ``q``, ``k``, ``v`` as far as the terms need them, ``(B, heads, L, d)``.
        scale: Factor of the logits.
        first_query: Rows before this one are not computed (1 drops CLS, the number of prefix tokens
            all of them).
        rotate: Puts rotary positions into queries and keys of ``qk``, ``(B, heads, L, d)``.
        factors: Of the terms; None: 1 each.
        bias: ``(L, L)``, added to the logits of every term but ``layers``, see
            :func:`neighbour_bias`.
        layers: Queries and keys ``(B, heads, L, d)`` of the blocks of the term ``layers``, with
            their positions.
        length: Mean length ``(B,)`` of the normed tokens, for ``gem``.

    Returns:
        ``(B, heads, L - first_query, d)``. With two softmax terms the weights of a row sum to 2.
    """
    value = parts["v"]
    mask = None if bias is None else bias[first_query:].to(value.dtype)

    def weighed(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
        query = query[:, :, first_query:]
        return F.scaled_dot_product_attention(query, key, value, mask, scale=scale)

    total: Tensor | None = None
    for term, factor in zip(terms, factors or [1.0] * len(terms), strict=True):
        if term == "identity":
            out = value[:, :, first_query:]
        elif term == "qkv":
            out = _attend_mean(parts, scale, first_query, mask)
        elif term == "gem":
            out = _attend_grouped(parts, scale * cast(Tensor, length), first_query, bias)
        elif term == "layers":
            out = torch.stack([weighed(*pair, mask=None) for pair in layers]).mean(dim=0)
        else:
            query, key = parts[term[0]], parts[term[1]]
            if term == "qk" and rotate is not None:
                query, key = rotate(query), rotate(key)
            out = weighed(query, key, mask)
        out = out if factor == 1 else factor * out
        total = out if total is None else total + out
    if total is None:
        raise ValueError("attend() needs at least one attention term")
    return total


def neighbour_bias(
    grid: tuple[int, int], sigma: float, device: torch.device | None = None, prefix: int = 1
) -> Tensor:
    """Gaussian of the distance of two patches, ``(p + h*w, p + h*w)`` float32, of the last grids.

    ``exp(-|a - b|^2 / (2 sigma^2))`` for patches at ``a`` and ``b``: 1 for a patch and itself; 0 in
    the rows and columns of CLS and other prefix tokens. Source: NACLIP (WACV 2025), eq. 6.

    Args:
        grid: Patches (h, w).
        sigma: Standard deviation in patches.
        device: Where the table lives.
        prefix: Tokens ``p`` before the patches.
    """
    # an export for any image size has symbols, which no cache can look up
    table = _neighbour_bias.__wrapped__ if is_symbol(*grid) else _neighbour_bias
    return table(grid, sigma, device, prefix)


@lru_cache(maxsize=8)
def _neighbour_bias(
    grid: tuple[int, int], sigma: float, device: torch.device | None, prefix: int
) -> Tensor:
    # An inference tensor in the cache would break the next training step.
    with torch.inference_mode(False), torch.no_grad():
        rows, columns = (_gaussian(size, sigma, device) for size in grid)
        # A Gaussian of two axes is the product of those of one.
        pairs = rows[:, None, :, None] * columns[None, :, None]  # (h, w, h, w)
        return F.pad(pairs.flatten(2).flatten(0, 1), (prefix, 0, prefix, 0)).float()


def _gaussian(size: int, sigma: float, device: torch.device | None) -> Tensor:
    """``exp(-(i - j)^2 / (2 sigma^2))`` of the places of an axis, ``(size, size)``."""
    places = torch.arange(size, device=device, dtype=torch.float64)
    return torch.exp(-((places[:, None] - places) ** 2) / (2 * sigma**2))


def _attend_mean(
    parts: dict[str, Tensor], scale: float, first_query: int, mask: Tensor | None = None
) -> Tensor:
    """``softmax(s (q q^T + k k^T + v v^T) / 3) v``: one attention over q, k and v side by side."""
    key, value = torch.cat([parts[name] for name in "qkv"], dim=-1), parts["v"]
    # Values as wide as the keys: the kernels that never write the weights ask for it.
    wide = F.pad(value, (0, key.shape[-1] - value.shape[-1]))
    query = key[:, :, first_query:]
    out = F.scaled_dot_product_attention(query, key, wide, mask, scale=scale / 3)
    return out[..., : value.shape[-1]]


def _attend_grouped(
    parts: dict[str, Tensor], sharpness: Tensor, first_query: int, bias: Tensor | None = None
) -> Tensor:
    """GEM: the mean over q, k and v of ``softmax(b u u^T) v``, once grouped (spec 1.7).

    Args:
        parts: ``q``, ``k``, ``v``, ``(B, heads, L, d)`` each.
        sharpness: ``b`` of every image, ``(B,)``.
        first_query: As in :func:`attend`.
        bias: As there; in both softmaxes.
    """
    value, outs = parts["v"], []
    sharp = sharpness.to(value.dtype)[:, None, None, None]
    mask = None if bias is None else bias.to(value.dtype)
    for name in "qkv":
        unit = F.normalize(parts[name], dim=-1)
        grouped = F.scaled_dot_product_attention(sharp * unit, unit, unit, mask, scale=1.0)
        unit = F.normalize(grouped, dim=-1)
        query = (sharp * unit)[:, :, first_query:]
        rows = None if mask is None else mask[first_query:]
        outs.append(F.scaled_dot_product_attention(query, unit, value, rows, scale=1.0))
    return torch.stack(outs).mean(dim=0)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``(B, L, D)`` to ``(B, heads, L, D / heads)``."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def logit_factor(scale: str, head_dim: int) -> float:
    """Factor of the attention logits by the name that a readout gives it."""
    return head_dim**-0.5 if scale == "sqrt" else 1.0


def attention_output(
    block: nn.Module,
    projected: dict[str, Tensor],
    terms: Sequence[str],
    scale: str = "sqrt",
    first_query: int = 0,
    rope: Tensor | None = None,
) -> Tensor:
    """``A``: attention of ``block`` and what merges its heads, LayerScale too; ``(B, L', D)``."""
    view = view_of(block, rope)
    return view.merge(mixed_heads(view, projected, terms, scale, first_query))


def mixed_heads(
    view: BlockView,
    projected: dict[str, Tensor],
    terms: Sequence[str],
    scale: str,
    first_query: int,
    **more: Any,
) -> Tensor:
    """``O``, heads side by side: ``(B, L', D)``; ``more`` as in :func:`attend`."""
    parts = {name: split_heads(value, view.heads) for name, value in projected.items()}
    factor = logit_factor(scale, parts["v"].shape[-1])
    out = attend(terms, parts, factor, first_query, view.rotate, **more)
    return out.transpose(1, 2).flatten(2)


def finish_block(
    block: nn.Module, x: Tensor, out: Tensor, residual: str, ffn: bool, weight: float = 1.0
) -> Tensor:
    """Add the residual and the feed-forward branch of ``block`` as a readout says.

    Args:
        block: Block of open_clip or timm.
        x: Input of the block, ``(B, L, D)``, prefix tokens (CLS) first.
        out: Attention output for the last ``L'`` of its tokens, ``(B, L', D)``.
        residual: ``token``, ``cls`` or ``none``.
        ffn: Whether the FFN branch follows.
        weight: Factor of the residual.
    """
    if residual != "none":
        added = x[:, x.shape[1] - out.shape[1] :] if residual == "token" else x[:, :1]
        out = out + (added if weight == 1 else weight * added)
    view = view_of(block)
    out = out + view.feed_forward(out) if ffn else out
    return out if view.after is None else cast(Tensor, view.after(out))


def run_block(block: nn.Module, x: Tensor, rope: Tensor | None = None) -> Tensor:
    """The ordinary block, ``(B, L, D)`` to ``(B, L, D)``; ``rope`` as in :class:`BlockView`.

    Without gradients it runs by the functions above: in eval mode ``nn.MultiheadAttention`` would
    take a fast path of its own that still writes the ``L x L`` weights.
    """
    view = view_of(block, rope)
    if torch.is_grad_enabled():
        out = view.ordinary(x)
        return out if view.after is None else cast(Tensor, view.after(out))
    out = attention_output(block, view.project(view.norm(x), "qkv"), ("qk",), rope=rope)
    return finish_block(block, x, out, residual="token", ffn=True)


def run_blocks(
    blocks: Iterable[nn.Module],
    x: Tensor,
    keep: Sequence[int] = (),
    checkpoint: bool = False,
    rope: Tensor | None = None,
) -> tuple[Tensor, dict[int, Tensor]]:
    """Run ordinary blocks; return the last output and those of the blocks in ``keep``."""
    kept: dict[int, Tensor] = {}
    for index, block in enumerate(blocks):
        x = recomputed(run_block, block, x, rope) if checkpoint else run_block(block, x, rope)
        if index in keep:
            kept[index] = x
    return x, kept


def recomputed(function: Callable[..., T], *args: object) -> T:
    """``function(*args)``, run again in the backward pass instead of keeping what it computed."""
    if not torch.is_grad_enabled():
        return function(*args)
    return cast(T, torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=False))
