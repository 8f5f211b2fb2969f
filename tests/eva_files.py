"""EVA02-CLIP checkpoints with the official code's names, made from its published layout."""

from __future__ import annotations

import math
from typing import Any

import timm
import torch
from torch import Tensor, nn

#: A tower of 71 tensors: width, blocks, heads, patch, side of the grid, joint channels.
TINY = dict(width=32, depth=3, heads=2, patch=4, grid=4, joint=8)


def vision_shapes(width: int, depth: int, patch: int, grid: int, joint: int) -> dict[str, Any]:
    """Official names (without ``visual.``) and shapes of an EVA02-CLIP image tower."""
    c, hidden = width, int(width * 2.6667)
    block = {
        **{f"norm{i}.{leaf}": (c,) for i in (1, 2) for leaf in ("weight", "bias")},
        **{f"attn.{name}_proj.weight": (c, c) for name in "qkv"},
        **{"attn.q_bias": (c,), "attn.v_bias": (c,)},
        **{"attn.inner_attn_ln.weight": (c,), "attn.inner_attn_ln.bias": (c,)},
        **{"attn.proj.weight": (c, c), "attn.proj.bias": (c,)},
        **{f"mlp.w{i}.weight": (hidden, c) for i in (1, 2)},
        **{f"mlp.w{i}.bias": (hidden,) for i in (1, 2)},
        **{"mlp.ffn_ln.weight": (hidden,), "mlp.ffn_ln.bias": (hidden,)},
        **{"mlp.w3.weight": (c, hidden), "mlp.w3.bias": (c,)},
    }
    return {
        **{"cls_token": (1, 1, c), "pos_embed": (1, 1 + grid * grid, c)},
        **{"patch_embed.proj.weight": (c, 3, patch, patch), "patch_embed.proj.bias": (c,)},
        **{f"blocks.{i}.{name}": shape for i in range(depth) for name, shape in block.items()},
        **{"norm.weight": (c,), "norm.bias": (c,)},
        **{"head.weight": (joint, c), "head.bias": (joint,)},
    }


def tiny_vision() -> dict[str, Tensor]:
    """Official names (without ``visual.``) and hash-filled values of the :data:`TINY` tower.

    Value i of the tensor whose name has rank j is ``0.6 (frac(sin(12.9898 (i + 1) + 78.233 (j +
    1)) 43758.5453) - 0.5)``, plus 1 in the weights of norms.
    """
    shapes = vision_shapes(*(TINY[k] for k in ("width", "depth", "patch", "grid", "joint")))
    out = {}
    for rank, name in enumerate(sorted(shapes)):
        values = 0.6 * hash_values(math.prod(shapes[name]), rank).view(shapes[name])
        if len(shapes[name]) == 1 and name.endswith(".weight"):
            values = values + 1
        out[name] = values.float()
    return out


def hash_values(count: int, rank: int) -> Tensor:
    """``count`` reproducible float64 values in [-0.5, 0.5)."""
    j = torch.arange(1, count + 1, dtype=torch.float64)
    x = torch.sin(j * 12.9898 + (rank + 1) * 78.233) * 43758.5453
    return x - x.floor() - 0.5


def rope_tables(depth: int, tokens: int) -> dict[str, Tensor]:
    """The tables that the official code saves with the weights, with arbitrary values."""
    places = ["visual.rope.", *(f"visual.blocks.{i}.attn.rope." for i in range(depth))]
    return {f"{p}freqs_{f}": torch.ones(tokens, 16) for p in places for f in ("cos", "sin")}


def timm_trunk() -> nn.Module:
    """timm's tower of the size :data:`TINY`, in eval mode."""
    return timm.create_model(
        "eva02_base_patch16_clip_224",
        img_size=TINY["patch"] * TINY["grid"],
        patch_size=TINY["patch"],
        embed_dim=TINY["width"],
        depth=TINY["depth"],
        num_heads=TINY["heads"],
        num_classes=TINY["joint"],
    ).eval()


class TinyEva(nn.Module):
    """What an image tower of this package looks like from outside: ``visual.trunk``."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Module()
        self.visual.trunk = timm_trunk()


#: open_clip config of the tower above with a text tower to go with it.
EVA_ARCH: dict[str, Any] = dict(
    embed_dim=8,
    vision_cfg=dict(
        image_size=16,
        timm_model_name="eva02_base_patch16_clip_224",
        timm_model_kwargs=dict(img_size=16, patch_size=4, embed_dim=32, depth=3, num_heads=2),
        timm_pool="token",
        timm_proj=None,
    ),
    text_cfg=dict(context_length=16, vocab_size=100, width=32, heads=2, layers=2),
)


def tiny_official(text: dict[str, Tensor], scale: str = "logit_scale") -> dict[str, Tensor]:
    """An official checkpoint: image tower, ``text.``, temperature and tables of RoPE."""
    return {
        **{"visual." + name: value for name, value in tiny_vision().items()},
        **rope_tables(TINY["depth"], TINY["grid"] ** 2),
        **{"text." + name: value for name, value in text.items()},
        scale: torch.tensor(4.6052),
    }
