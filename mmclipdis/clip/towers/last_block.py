"""What lies inside the last block of timm's ViTs: its q, k, v, and the block on other tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from timm.models.beit import Block as BeitBlock
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from timm.models.vision_transformer_sam import Block as SAMBlock
from torch import Tensor, nn

#: Blocks whose attention sees ``norm1(x)``.
_PRE_NORM = (Block, EvaBlock, SAMBlock, BeitBlock)


@dataclass(frozen=True)
class LastBlockParts:
    """What the last block of a ViT starts from, of the patches alone, ``(B, D, h, w)`` each.

    Attributes:
        input: The block's input after the model's *final* norm.
        q, k, v: The block's projections, with bias, heads side by side, before any scale.
    """

    input: Tensor
    q: Tensor
    k: Tensor
    v: Tensor


def check_projections(model: Any, name: str, feature: str) -> int:
    """Channels of q, k and v of the last block of a model of timm.

    Args:
        model: The model.
        name: What the user calls it, for messages.
        feature: What is asked of it, for messages.

    Raises:
        ValueError: it has no such projections, or no block before the last.
    """
    blocks: Any = getattr(model, "blocks", None)
    last: Any = None
    if isinstance(blocks, (nn.Sequential, nn.ModuleList)) and len(blocks):
        last = blocks[-1]
    known = isinstance(last, _PRE_NORM)
    attn: Any = last.attn if known else None
    width: Any = attn.proj.in_features if known else 0
    if not width or any(len(_projection(attn, part)[0]) != width for part in "qkv"):
        raise ValueError(
            f"{feature} needs a ViT of timm whose last block has q, k and v of one width (ViT, "
            f"EVA, BEiT, SAM); {name!r} is a {type(model).__name__}: choose feature='map' or "
            "another model"
        )
    if len(blocks) < 2:
        raise ValueError(f"{feature} needs a block before the last; {name!r} has one block")
    return int(width)


def project(block: Any, tokens: Tensor, parts: str) -> tuple[Tensor, ...]:
    """Projections ``(B, D, h, w)`` of a block's input ``(B, D, h, w)``, of ``q``, ``k``, ``v``."""
    normed = block.norm1(tokens.permute(0, 2, 3, 1))
    found = (F.linear(normed, *_projection(block.attn, part)) for part in parts)
    return tuple(projected.permute(0, 3, 1, 2) for projected in found)


def check_stitchable(model: Any, name: str) -> None:
    """Refuse a model whose last block :func:`finish` cannot run.

    Raises:
        ValueError: naming the model.
    """
    asked = "the last block on stitched tokens"
    check_projections(model, name, asked)
    block = model.blocks[-1]
    plain = type(model) is VisionTransformer and type(block) is Block
    gated = getattr(block, "attn", None) is not None and getattr(block.attn, "gate", None)
    if not plain or type(block.attn) is not Attention or gated is not None:
        raise ValueError(
            f"{asked} is defined for timm's plain ViT, such as DINO and DINOv2; {name!r} is a "
            f"{type(model).__name__} with {type(block).__name__} and {type(block.attn).__name__}"
        )


def finish(model: Any, parts: LastBlockParts) -> Tensor:
    """The last block of a plain ViT on parts of any grid: ``(B, D, h, w)``, without final norm.

    ``z = input + W_o MHA(q, k, v) + b_o``, then ``z + MLP(norm2(z))``: no CLS among the keys, the
    residual after the final norm and none at the end (OV-Stitcher, training_free_2 spec 5.2). A
    LayerScale of the block is kept. The attention never holds its n x n weights.
    """
    block: Any = model.blocks[-1]
    attn = block.attn
    q, k, v = (_heads(part, attn.num_heads) for part in (parts.q, parts.k, parts.v))
    mixed = F.scaled_dot_product_attention(attn.q_norm(q), attn.k_norm(k), v, scale=attn.scale)
    merged = attn.norm(mixed.transpose(1, 2).flatten(2))
    tokens: Tensor = parts.input.flatten(2).transpose(1, 2)
    tokens = tokens + block.ls1(attn.proj(merged))
    tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
    return tokens.transpose(1, 2).reshape(parts.input.shape)


def _heads(part: Tensor, heads: int) -> Tensor:
    """``(B, M, n, d)`` of ``(B, M d, h, w)``, laid out so that no n x n weights are made."""
    split = part.reshape(len(part), heads, part.shape[1] // heads, -1)
    return split.transpose(2, 3).contiguous()


def _projection(attn: Any, part: str) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of ``q``, ``k`` or ``v``, fused or not, the bias in the layer or beside."""
    index = "qkv".index(part)
    if getattr(attn, "qkv", None) is None:
        layer = getattr(attn, f"{part}_proj")
        return layer.weight, layer.bias
    weight = attn.qkv.weight.chunk(3)[index]
    if attn.qkv.bias is not None:
        return weight, attn.qkv.bias.chunk(3)[index]
    return weight, getattr(attn, f"{part}_bias", None)
