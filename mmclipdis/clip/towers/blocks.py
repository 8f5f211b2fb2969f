"""The two kinds of transformer block, open_clip's and timm's EVA, seen alike by the readouts.

A view holds no weights: it says which modules of a block normalise, project, merge the heads and
feed forward, and how positions enter the attention. Everything that is *computed* stands once, in
:mod:`mmclipdis.clip.towers.attention`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from timm.layers import apply_rot_embed_cat
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn


class BlockView(ABC):
    """One block ``X -> X + Attn(norm(X)) -> + FFN``, whoever wrote it.

    Args:
        block: The block itself.
        rope: Rotary table of the patches, ``(N, 2 d)``: sine, then cosine. None where the block
            has no rotary positions.
    """

    #: Prefix of the parameters of one projection (``{}`` is ``q``, ``k`` or ``v``) that is stored
    #: apart, and prefixes of those of the feed-forward branch.
    projection_prefix: str
    ffn_prefixes: tuple[str, ...]

    def __init__(self, block: nn.Module, rope: Tensor | None = None) -> None:
        self.block: Any = block
        self.rope = rope

    @property
    def heads(self) -> int:
        """Attention heads."""
        return int(self.block.attn.num_heads)

    @abstractmethod
    def ordinary(self, x: Tensor) -> Tensor:
        """The block as its library runs it, ``(B, L, D)`` to ``(B, L, D)``."""

    @abstractmethod
    def norm(self, x: Tensor) -> Tensor:
        """The norm before the attention."""

    @abstractmethod
    def project(self, normed: Tensor, parts: Iterable[str]) -> dict[str, Tensor]:
        """The asked ones of the q, k, v projections, ``(B, L, D)`` each, heads side by side."""

    @abstractmethod
    def rotate(self, x: Tensor) -> Tensor:
        """Positions put into queries or keys ``(B, heads, L, d)`` of the term ``qk``."""

    @abstractmethod
    def merge(self, x: Tensor) -> Tensor:
        """From the heads side by side, ``(B, L, D)``, to the output of the attention branch."""

    @abstractmethod
    def feed_forward(self, x: Tensor) -> Tensor:
        """The feed-forward branch with its norm and scale, without the residual."""


class OpenCLIPBlockView(BlockView):
    """open_clip's ``ResidualAttentionBlock`` (OpenAI, LAION, MetaCLIP; text towers too)."""

    projection_prefix = "attn.{}_proj_weight"
    ffn_prefixes = ("ln_2.", "mlp.", "ls_2.")

    def ordinary(self, x: Tensor) -> Tensor:
        """open_clip's own forward pass, ``(B, L, D)`` to ``(B, L, D)``."""
        return cast(Tensor, self.block(x))

    def norm(self, x: Tensor) -> Tensor:
        """``ln_1`` of the tokens ``(B, L, D)``."""
        return cast(Tensor, self.block.ln_1(x))

    def project(self, normed: Tensor, parts: Iterable[str]) -> dict[str, Tensor]:
        """The asked ones of q, k, v, ``(B, L, D)`` each, see :func:`project`."""
        return project(self.block.attn, normed, parts)

    def rotate(self, x: Tensor) -> Tensor:
        """``x`` as it is: these blocks know positions from the table at the entrance only."""
        return x

    def merge(self, x: Tensor) -> Tensor:
        """Output projection and layer scale, ``(B, L, D)`` to ``(B, L, D)``."""
        return cast(Tensor, self.block.ls_1(self.block.attn.out_proj(x)))

    def feed_forward(self, x: Tensor) -> Tensor:
        """``ln_2``, MLP and layer scale, ``(B, L, D)`` to ``(B, L, D)``."""
        return cast(Tensor, self.block.ls_2(feed_forward(self.block.mlp, self.block.ln_2(x))))


class EvaBlockView(BlockView):
    """timm's ``EvaBlock`` as EVA02-CLIP has it: a norm before the output projection, SwiGLU, RoPE.

    RoPE turns queries against keys. DeCLIP compares queries with queries and leaves it out, as
    it does not exist in the self-self terms here (declip spec 1.2).
    """

    projection_prefix = "attn.{}_proj."
    ffn_prefixes = ("norm2.", "mlp.", "gamma_2")

    def ordinary(self, x: Tensor) -> Tensor:
        """timm's own forward pass, ``(B, L, D)`` to ``(B, L, D)``.

        Raises:
            ValueError: without ``rope``, which timm would take as no positions at all.
        """
        return cast(Tensor, self.block(x, rope=self._table()))

    def norm(self, x: Tensor) -> Tensor:
        """``norm1`` of the tokens ``(B, L, D)``."""
        return cast(Tensor, self.block.norm1(x))

    def project(self, normed: Tensor, parts: Iterable[str]) -> dict[str, Tensor]:
        """The asked ones of q, k, v, ``(B, L, D)`` each; k has no bias."""
        return {part: getattr(self.block.attn, f"{part}_proj")(normed) for part in parts}

    def rotate(self, x: Tensor) -> Tensor:
        """``x`` ``(B, heads, 1 + N, d)`` with its patches turned by the table; CLS is left alone.

        Raises:
            ValueError: without ``rope``, unless there is CLS alone.
        """
        if x.shape[2] == 1:  # CLS alone, which is never rotated
            return x
        patches = apply_rot_embed_cat(x[:, :, 1:], self._table())
        return torch.cat([x[:, :, :1], patches], dim=2)

    def _table(self) -> Tensor:
        if self.rope is None:  # timm would run, without any rotation
            raise ValueError("the term 'qk' of an EVA block needs rope, the table of its grid")
        return self.rope

    def merge(self, x: Tensor) -> Tensor:
        """Norm of the heads side by side (if the trunk has one), output projection and scale."""
        attention = self.block.attn
        return _scaled(attention.proj(attention.norm(x)), self.block.gamma_1)

    def feed_forward(self, x: Tensor) -> Tensor:
        """``norm2``, SwiGLU and scale, ``(B, L, D)`` to ``(B, L, D)``."""
        return _scaled(self.block.mlp(self.block.norm2(x)), self.block.gamma_2)


def _scaled(x: Tensor, gamma: Tensor | None) -> Tensor:
    return x if gamma is None else gamma * x


def view_of(block: nn.Module, rope: Tensor | None = None) -> BlockView:
    """The view of ``block``; see :class:`BlockView`."""
    kind = EvaBlockView if isinstance(block, EvaBlock) else OpenCLIPBlockView
    return kind(block, rope)


def blocks_in(module: nn.Module) -> list[nn.Module]:
    """The transformer blocks inside an image or text tower, first to last."""
    kinds = (ResidualAttentionBlock, EvaBlock, Block)
    return [m for m in module.modules() if isinstance(m, kinds)]


def has_plain_attention(blocks: Iterable[nn.Module]) -> bool:
    """Whether every block is one that :class:`OpenCLIPBlockView` reads (custom ones are not)."""
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


def feed_forward(mlp: nn.Module, x: Tensor) -> Tensor:
    """``mlp(x)``; without gradients QuickGELU overwrites its input, four times as wide as ``x``.

    As an expression of three temporaries it takes an eighth of a CPU's time for a ViT-B/16.
    """
    if torch.is_grad_enabled() or not isinstance(mlp, nn.Sequential):
        return cast(Tensor, mlp(x))
    for layer in mlp:
        x = x.mul_((1.702 * x).sigmoid_()) if isinstance(layer, QuickGELU) else layer(x)
    return x
