"""The last block of a CLIP tower as pure functions of its weights and a :class:`Readout`.

With ``Y = norm(X)`` and ``q, k, v = Y W_in^T + b_in`` split into heads of width ``d``::

    O = sum over terms of softmax(s a b^T) v        (or v for the term "identity")
    A = merge(O)                                    (W_out; EVA: of a LayerNorm of O)
    U = A + residual;   Z = U + FFN(U) if ffn else U

EVA's rotary positions enter the term ``qk`` only. Only the projections a readout needs are
computed, attention never materialises ``L x L`` weights (scaled dot-product attention), and the CLS
query is skipped where nobody reads it. What a block is made of tells
:mod:`mmclipdis.clip.towers.blocks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

from mmclipdis.clip.towers.blocks import view_of
from mmclipdis.clip.towers.readout import READOUTS, Readout

T = TypeVar("T")


def attend(
    terms: Sequence[str],
    parts: dict[str, Tensor],
    scale: float,
    first_query: int = 0,
    rotate: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Sum of attention terms, (training_free spec 1.2; SCLIP eq. 4; ClearCLIP eq. 4).

    Args:
        terms: Of ``qk``, ``qq``, ``kk``, ``vv``, ``qkv``, ``identity``.
        parts: ``q``, ``k``, ``v`` as far as the terms need them, ``(B, heads, L, d)``.
        scale: Factor of the logits.
        first_query: Rows before this one are not computed (1 drops CLS).
        rotate: Puts rotary positions into queries and keys of ``qk``, ``(B, heads, L, d)``.

    Returns:
        ``(B, heads, L - first_query, d)``. With two softmax terms the weights of a row sum to 2.
    """
    value = parts["v"]
    total: Tensor | None = None
    for term in terms:
        if term == "identity":
            out = value[:, :, first_query:]
        elif term == "qkv":
            out = _attend_mean(parts, scale, first_query)
        else:
            query, key = parts[term[0]], parts[term[1]]
            if term == "qk" and rotate is not None:
                query, key = rotate(query), rotate(key)
            query = query[:, :, first_query:]
            out = F.scaled_dot_product_attention(query, key, value, scale=scale)
        total = out if total is None else total + out
    if total is None:
        raise ValueError("attend() needs at least one attention term")
    return total


def _attend_mean(parts: dict[str, Tensor], scale: float, first_query: int) -> Tensor:
    """``softmax(s (q q^T + k k^T + v v^T) / 3) v``: one attention over q, k and v side by side."""
    key, value = torch.cat([parts[name] for name in "qkv"], dim=-1), parts["v"]
    # Values as wide as the keys: the kernels that never write the weights ask for it.
    wide = F.pad(value, (0, key.shape[-1] - value.shape[-1]))
    query = key[:, :, first_query:]
    out = F.scaled_dot_product_attention(query, key, wide, scale=scale / 3)
    return out[..., : value.shape[-1]]


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
    parts = {name: split_heads(value, view.heads) for name, value in projected.items()}
    factor = logit_factor(scale, parts["v"].shape[-1])
    out = attend(terms, parts, factor, first_query, view.rotate)
    return view.merge(out.transpose(1, 2).flatten(2))


def finish_block(block: nn.Module, x: Tensor, out: Tensor, residual: str, ffn: bool) -> Tensor:
    """Add the residual and the feed-forward branch of ``block`` as a readout says.

    Args:
        block: Block of open_clip or EVA.
        x: Input of the block, ``(B, L, D)``, CLS first.
        out: Attention output for the last ``L'`` of its tokens, ``(B, L', D)``.
        residual: ``token``, ``cls`` or ``none``.
        ffn: Whether the FFN branch follows.
    """
    if residual == "token":
        out = out + x[:, x.shape[1] - out.shape[1] :]
    elif residual == "cls":
        out = out + x[:, :1]
    return out + view_of(block).feed_forward(out) if ffn else out


def run_block(block: nn.Module, x: Tensor, rope: Tensor | None = None) -> Tensor:
    """The ordinary block, ``(B, L, D)`` to ``(B, L, D)``; ``rope`` as in :class:`BlockView`.

    Without gradients it runs by the functions above: in eval mode ``nn.MultiheadAttention`` would
    take a fast path of its own that still writes the ``L x L`` weights.
    """
    view = view_of(block, rope)
    if torch.is_grad_enabled():
        return view.ordinary(x)
    out = attention_output(block, view.project(view.norm(x), "qkv"), ("qk",), rope=rope)
    return finish_block(block, x, out, residual="token", ffn=True)


class BlockReader:
    """The last block at one input, read in several ways; each projection is computed once.

    Args:
        block: Block of open_clip or EVA.
        x: Its input, ``(B, 1 + N, D)``, CLS first; CLS takes part as key and value.
        rope: Rotary table of the ``N`` patches, for EVA.
    """

    def __init__(self, block: nn.Module, x: Tensor, rope: Tensor | None = None) -> None:
        self.block = block
        self.x = x
        self.rope = rope
        self._view = view_of(block, rope)
        self._normed = self._view.norm(x)
        self._projected: dict[str, Tensor] = {}
        self._ordinary: Tensor | None = None

    def parts(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The asked ones of the ``q``, ``k``, ``v`` projections, each ``(B, 1 + N, D)``."""
        names = tuple(names)
        missing = [name for name in names if name not in self._projected]
        self._projected |= self._view.project(self._normed, missing)
        return {name: self._projected[name] for name in names}

    def ordinary(self) -> Tensor:
        """Output ``(B, 1 + N, D)`` of the block as CLIP has it."""
        if self._ordinary is None:
            out = self._attend(self.parts("qkv"), ("qk",))
            self._ordinary = finish_block(self.block, self.x, out, residual="token", ffn=True)
        return self._ordinary

    def cls(self) -> Tensor:
        """CLS row ``(B, 1, D)`` of :meth:`ordinary`, for the price of a single query."""
        if self._ordinary is not None:
            return self._ordinary[:, :1]
        query = self._view.project(self._normed[:, :1], "q")
        out = self._attend(query | self.parts("kv"), ("qk",))
        return finish_block(self.block, self.x[:, :1], out, residual="token", ffn=True)

    def attention(self, terms: Sequence[str], scale: str = "sqrt") -> Tensor:
        """Attention output ``(B, N, D)`` of the patches."""
        return self._attend(self.parts(Readout(tuple(terms)).parts), terms, scale, first_query=1)

    def patches(self, readout: Readout) -> Tensor:
        """Patch tokens ``Z`` ``(B, N, D)`` under ``readout``."""
        if self._ordinary is not None and readout == READOUTS["vanilla"]:
            return self._ordinary[:, 1:]
        out = self.attention(readout.attention, readout.scale)
        return finish_block(self.block, self.x, out, readout.residual, readout.ffn)

    def _attend(
        self, parts: dict[str, Tensor], terms: Sequence[str], scale: str = "sqrt", **rows: int
    ) -> Tensor:
        return attention_output(self.block, parts, terms, scale, rope=self.rope, **rows)


def read_last_block(
    block: nn.Module, x: Tensor, readout: Readout, rope: Tensor | None = None
) -> Tensor:
    """Patch tokens ``(B, N, D)`` of the last block under ``readout``; see :class:`BlockReader`."""
    return BlockReader(block, x, rope).patches(readout)


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
