"""The last block of a CLIP tower as pure functions of its weights and a :class:`Readout`.

With ``Y = LN1(X)`` and ``q, k, v = Y W_in^T + b_in`` split into heads of width ``d``::

    O = sum over terms of softmax(s a b^T) v        (or v for the term "identity")
    A = O W_out^T + b_out
    U = A + residual;   Z = U + FFN(LN2(U)) if ffn else U

Only the projections a readout needs are computed, attention never materialises ``L x L`` weights
(scaled dot-product attention), and the CLS query is skipped where nobody reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn

from mmclipdis.clip.readout import READOUTS, Readout


def attend(
    terms: Sequence[str], parts: dict[str, Tensor], scale: float, first_query: int = 0
) -> Tensor:
    """Sum of attention terms, (training_free spec 1.2; SCLIP eq. 4; ClearCLIP eq. 4).

    Args:
        terms: Of ``qk``, ``qq``, ``kk``, ``vv``, ``qkv``, ``identity``.
        parts: ``q``, ``k``, ``v`` as far as the terms need them, ``(B, heads, L, d)``.
        scale: Factor of the logits.
        first_query: Rows before this one are not computed (1 drops CLS).

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
            query, key = parts[term[0]][:, :, first_query:], parts[term[1]]
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


def has_plain_attention(blocks: Iterable[nn.Module]) -> bool:
    """Whether the functions below can read every block (open_clip's custom ones they cannot)."""
    return all(isinstance(getattr(block, "attn", None), nn.MultiheadAttention) for block in blocks)


def project(attention: nn.MultiheadAttention, x: Tensor, parts: Iterable[str]) -> dict[str, Tensor]:
    """The asked ones of the q, k, v projections of ``x`` ``(B, L, D)``, each ``(B, L, D)``.

    Works for fused ``in_proj_weight`` and for the split ``q_proj_weight`` ... layout.
    """
    weights = qkv_weights(attention)
    biases = attention.in_proj_bias.chunk(3)
    return {p: F.linear(x, weights["qkv".index(p)], biases["qkv".index(p)]) for p in parts}


def qkv_weights(attention: nn.MultiheadAttention) -> tuple[Tensor, ...]:
    """The three ``(D, D)`` input projections, whether they are stored fused or split."""
    if attention.in_proj_weight is not None:
        return attention.in_proj_weight.chunk(3)
    return attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``(B, L, D)`` to ``(B, heads, L, D / heads)``."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def attention_output(
    block: ResidualAttentionBlock,
    projected: dict[str, Tensor],
    terms: Sequence[str],
    scale: str = "sqrt",
    first_query: int = 0,
) -> Tensor:
    """``A``: attention, output projection and LayerScale of ``block``; ``(B, L', D)``."""
    attention = block.attn
    heads = attention.num_heads
    factor = (attention.embed_dim // heads) ** -0.5 if scale == "sqrt" else 1.0
    parts = {name: split_heads(value, heads) for name, value in projected.items()}
    out = attend(terms, parts, factor, first_query).transpose(1, 2).flatten(2)
    return cast(Tensor, block.ls_1(attention.out_proj(out)))


def finish_block(
    block: ResidualAttentionBlock, x: Tensor, out: Tensor, residual: str, ffn: bool
) -> Tensor:
    """Add the residual and the feed-forward branch of ``block`` as a readout says.

    Args:
        block: open_clip residual attention block.
        x: Input of the block, ``(B, L, D)``, CLS first.
        out: Attention output for the last ``L'`` of its tokens, ``(B, L', D)``.
        residual: ``token``, ``cls`` or ``none``.
        ffn: Whether the FFN branch follows.
    """
    if residual == "token":
        out = out + x[:, x.shape[1] - out.shape[1] :]
    elif residual == "cls":
        out = out + x[:, :1]
    if ffn:
        out = out + block.ls_2(feed_forward(block.mlp, block.ln_2(out)))
    return out


def feed_forward(mlp: nn.Module, x: Tensor) -> Tensor:
    """``mlp(x)``; without gradients QuickGELU overwrites its input, four times as wide as ``x``.

    As an expression of three temporaries it takes an eighth of a CPU's time for a ViT-B/16.
    """
    if torch.is_grad_enabled() or not isinstance(mlp, nn.Sequential):
        return cast(Tensor, mlp(x))
    for layer in mlp:
        x = x.mul_((1.702 * x).sigmoid_()) if isinstance(layer, QuickGELU) else layer(x)
    return x


def run_block(block: ResidualAttentionBlock, x: Tensor) -> Tensor:
    """The ordinary block, ``(B, L, D)`` to ``(B, L, D)``.

    Without gradients it runs by the functions above: in eval mode ``nn.MultiheadAttention`` would
    take a fast path of its own that still writes the ``L x L`` weights.
    """
    if torch.is_grad_enabled():
        return cast(Tensor, block(x))
    out = attention_output(block, project(block.attn, block.ln_1(x), "qkv"), ("qk",))
    return finish_block(block, x, out, residual="token", ffn=True)


class BlockReader:
    """The last block at one input, read in several ways; each projection is computed once.

    Args:
        block: open_clip residual attention block.
        x: Its input, ``(B, 1 + N, D)``, CLS first; CLS takes part as key and value.
    """

    def __init__(self, block: ResidualAttentionBlock, x: Tensor) -> None:
        self.block = block
        self.x = x
        self._normed = block.ln_1(x)
        self._projected: dict[str, Tensor] = {}
        self._ordinary: Tensor | None = None

    def parts(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The asked ones of the ``q``, ``k``, ``v`` projections, each ``(B, 1 + N, D)``."""
        names = tuple(names)
        missing = [name for name in names if name not in self._projected]
        self._projected |= project(self.block.attn, self._normed, missing)
        return {name: self._projected[name] for name in names}

    def ordinary(self) -> Tensor:
        """Output ``(B, 1 + N, D)`` of the block as CLIP has it."""
        if self._ordinary is None:
            out = attention_output(self.block, self.parts("qkv"), ("qk",))
            self._ordinary = finish_block(self.block, self.x, out, residual="token", ffn=True)
        return self._ordinary

    def cls(self) -> Tensor:
        """CLS row ``(B, 1, D)`` of :meth:`ordinary`, for the price of a single query."""
        if self._ordinary is not None:
            return self._ordinary[:, :1]
        query = project(self.block.attn, self._normed[:, :1], "q")
        out = attention_output(self.block, query | self.parts("kv"), ("qk",))
        return finish_block(self.block, self.x[:, :1], out, residual="token", ffn=True)

    def attention(self, terms: Sequence[str], scale: str = "sqrt") -> Tensor:
        """Attention output ``(B, N, D)`` of the patches."""
        parts = self.parts(Readout(tuple(terms)).parts)
        return attention_output(self.block, parts, terms, scale, first_query=1)

    def patches(self, readout: Readout) -> Tensor:
        """Patch tokens ``Z`` ``(B, N, D)`` under ``readout``."""
        if self._ordinary is not None and readout == READOUTS["vanilla"]:
            return self._ordinary[:, 1:]
        out = self.attention(readout.attention, readout.scale)
        return finish_block(self.block, self.x, out, readout.residual, readout.ffn)


def read_last_block(block: ResidualAttentionBlock, x: Tensor, readout: Readout) -> Tensor:
    """Patch tokens ``(B, N, D)`` of the last block under ``readout``; see :class:`BlockReader`."""
    return BlockReader(block, x).patches(readout)


def run_blocks(
    blocks: Iterable[ResidualAttentionBlock],
    x: Tensor,
    keep: Sequence[int] = (),
    checkpoint: bool = False,
) -> tuple[Tensor, dict[int, Tensor]]:
    """Run ordinary blocks; return the last output and those of the blocks in ``keep``."""
    kept: dict[int, Tensor] = {}
    for index, block in enumerate(blocks):
        if checkpoint and torch.is_grad_enabled():
            x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
        else:
            x = run_block(block, x)
        if index in keep:
            kept[index] = x
    return x, kept
