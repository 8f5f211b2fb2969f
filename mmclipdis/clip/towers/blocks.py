"""The kinds of transformer block, open_clip's and timm's, seen alike by the readouts.

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

#: The blocks of timm that :class:`TimmBlockView` reads.
TIMM_BLOCKS = (Block, EvaBlock)


class BlockView(ABC):
    """One block ``X -> X + Attn(norm(X)) -> + FFN``, whoever wrote it.

    Args:
        block: The block itself.
        rope: Rotary table of the patches, ``(N, 2 d)``: sine, then cosine. None where the block
            has no rotary positions.
    """

    #: Prefixes of the parameters of the feed-forward branch.
    ffn_prefixes: tuple[str, ...]
    #: What the block's output goes through before anything else sees it.
    after: nn.Module | None = None

    def __init__(self, block: nn.Module, rope: Tensor | None = None) -> None:
        self.block: Any = block
        self.rope = rope

    @property
    def heads(self) -> int:
        """Attention heads."""
        return int(self.block.attn.num_heads)

    @property
    @abstractmethod
    def projection_prefix(self) -> str:
        """Prefix of the parameters of one projection (``{}`` is ``q``, ``k``, ``v``) stored apart.

        Where the three are fused there are no such parameters.
        """

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

    ffn_prefixes = ("ln_2.", "mlp.", "ls_2.")

    @property
    def projection_prefix(self) -> str:
        """``attn.{}_proj_weight``; biases are always fused."""
        return "attn.{}_proj_weight"

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


class TimmBlockView(BlockView):
    """timm's pre-norm blocks: ``Block`` (SigLIP, TIPS) and ``EvaBlock`` (EVA02-CLIP, PE, DINOv3).

    Both have a norm before the output projection (an identity in most), layer scales, and q, k, v
    either fused in ``attn.qkv`` or apart. An ``EvaBlock`` has rotary positions, which turn queries
    against keys; prefix tokens stay as they are. DeCLIP compares queries with queries and leaves
    rotation out, as it does not exist in the self-self terms here (declip spec 1.2).
    """

    ffn_prefixes = ("norm2.", "mlp.", "ls2.", "gamma_2")

    @property
    def projection_prefix(self) -> str:
        """``attn.{}_proj.``, or of a fused projection that was split for training."""
        fused = getattr(self.block.attn, "qkv", None) is not None
        return "attn.qkv.{}_proj." if fused else "attn.{}_proj."

    @property
    def takes_rope(self) -> bool:
        """Whether the block has rotary positions, as every ``EvaBlock`` that does not deny it."""
        return bool(getattr(self.block, "takes_rope", isinstance(self.block, EvaBlock)))

    def ordinary(self, x: Tensor) -> Tensor:
        """timm's own forward pass, ``(B, L, D)`` to ``(B, L, D)``.

        Raises:
            ValueError: without ``rope`` where the block has it: timm would take that as no
                positions at all.
        """
        return cast(Tensor, self.block(x, rope=self._table()) if self.takes_rope else self.block(x))

    def norm(self, x: Tensor) -> Tensor:
        """``norm1`` of the tokens ``(B, L, D)``."""
        return cast(Tensor, self.block.norm1(x))

    def project(self, normed: Tensor, parts: Iterable[str]) -> dict[str, Tensor]:
        """The asked ones of q, k, v, ``(B, L, D)`` each, behind the norms of q and k if any."""
        attention = self.block.attn
        found = {part: _projection(attention, part, normed) for part in parts}
        for part in found.keys() & {"q", "k"}:
            norm = getattr(attention, f"{part}_norm", None)
            if norm is not None and not isinstance(norm, nn.Identity):
                by_heads = found[part].view(*found[part].shape[:-1], self.heads, -1)
                found[part] = norm(by_heads).flatten(-2)
        return found

    def rotate(self, x: Tensor) -> Tensor:
        """``x`` ``(B, heads, p + N, d)`` with its patches turned; the ``p`` prefix tokens are not.

        Raises:
            ValueError: without ``rope``, unless there are prefix tokens alone.
        """
        if not self.takes_rope:
            return x
        prefix = int(self.block.attn.num_prefix_tokens)
        if x.shape[2] <= prefix:  # CLS alone, which is never rotated
            return x
        half = bool(getattr(self.block.attn, "rotate_half", False))
        patches = apply_rot_embed_cat(x[:, :, prefix:], self._table(), half=half)
        return torch.cat([x[:, :, :prefix], patches], dim=2) if prefix else patches

    def _table(self) -> Tensor:
        if self.rope is None:  # timm would run, without any rotation
            raise ValueError("the term 'qk' of an EVA block needs rope, the table of its grid")
        return self.rope

    def merge(self, x: Tensor) -> Tensor:
        """Norm of the heads side by side (if the trunk has one), output projection and scale."""
        attention = self.block.attn
        return self._scaled(attention.proj(attention.norm(x)), 1)

    def feed_forward(self, x: Tensor) -> Tensor:
        """``norm2``, MLP and scale, ``(B, L, D)`` to ``(B, L, D)``."""
        return self._scaled(self.block.mlp(self.block.norm2(x)), 2)

    def _scaled(self, x: Tensor, branch: int) -> Tensor:
        """Layer scale of a branch: ``gamma_1`` of an ``EvaBlock``, ``ls1`` of a ``Block``."""
        if isinstance(self.block, EvaBlock):
            gamma = getattr(self.block, f"gamma_{branch}")
            return x if gamma is None else gamma * x
        return cast(Tensor, getattr(self.block, f"ls{branch}")(x))


def _projection(attention: Any, part: str, normed: Tensor) -> Tensor:
    """``q``, ``k`` or ``v`` of tokens ``(B, L, D)``, wherever timm holds its rows."""
    fused: Any = getattr(attention, "qkv", None)
    holder = attention if fused is None else fused
    apart = getattr(holder, f"{part}_proj", None)
    if apart is not None:
        return cast(Tensor, apart(normed))
    row = "qkv".index(part)
    bias = None if fused.bias is None else fused.bias.chunk(3)[row]
    if getattr(attention, "q_bias", None) is not None:  # EvaAttention has them beside
        bias = getattr(attention, f"{part}_bias")
    return F.linear(normed, fused.weight.chunk(3)[row], bias)


class NormedBlock(nn.Module):
    """A block and the norm that what follows it is fed with: the end of a trunk below a head.

    Both belong to others, which hold their weights.
    """

    def __init__(self, block: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.inner, self.after = block, norm


def view_of(block: nn.Module, rope: Tensor | None = None) -> BlockView:
    """The view of ``block``; see :class:`BlockView`."""
    if isinstance(block, NormedBlock):
        view = view_of(block.inner, rope)
        view.after = block.after
        return view
    return (TimmBlockView if isinstance(block, TIMM_BLOCKS) else OpenCLIPBlockView)(block, rope)


def blocks_in(module: nn.Module) -> list[nn.Module]:
    """The transformer blocks inside an image or text tower, first to last."""
    kinds = (ResidualAttentionBlock, *TIMM_BLOCKS)
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
