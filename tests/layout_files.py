"""State dicts with the names of other libraries, tiny and filled by a rule, for tests of layouts.

Names and shapes were compared with ``transformers`` 5.24 and the official repositories' lists.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

#: Width, blocks, heads, hidden channels, patch, side of the grid of every image tower here.
D, DEPTH, HEADS, HIDDEN, PATCH, GRID = 8, 2, 2, 16, 4, 2
#: Words and places of every text tower here.
WORDS, PLACES = 12, 6

Shapes = dict[str, tuple[int, ...]]


def filled(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Weights by rule F of the encoders' spec: names in their order, norms near one; float64."""
    out = {}
    for j, name in enumerate(sorted(shapes)):
        n = torch.arange(math.prod(shapes[name]), dtype=torch.float64)
        values = 0.5 * torch.sin(0.7 * n + 1.3 * j + 0.1)
        norm = name.endswith("weight") and any(part in name for part in ("norm", "layrnorm", "ln_"))
        out[name] = ((1 + 0.2 * values) if norm else values).reshape(tuple(shapes[name]))
    return out


def pixels() -> Tensor:
    """One image ``(1, 3, 8, 8)``."""
    side = PATCH * GRID
    return torch.sin(0.37 * torch.arange(3 * side * side, dtype=torch.float64)).view(
        1, 3, side, side
    )


def _linear(name: str, out: int, into: int) -> Shapes:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def _norm(name: str, width: int = D) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _hf_layer(start: str) -> Shapes:
    found: Shapes = {}
    for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
        found |= _linear(f"{start}self_attn.{part}", D, D)
    found |= _norm(f"{start}layer_norm1") | _norm(f"{start}layer_norm2")
    return found | _linear(f"{start}mlp.fc1", HIDDEN, D) | _linear(f"{start}mlp.fc2", D, HIDDEN)


def _hf_text(start: str) -> Shapes:
    found: Shapes = {
        f"{start}embeddings.token_embedding.weight": (WORDS, D),
        f"{start}embeddings.position_embedding.weight": (PLACES, D),
    }
    for i in range(DEPTH):
        found |= _hf_layer(f"{start}encoder.layers.{i}.")
    return found | _norm(f"{start}final_layer_norm")


def hf_siglip(image: str = "vision_model.", text: str = "text_model.", naflex: bool = False) -> Any:
    """Weights of ``SiglipModel``, or of SigLIP 2's for images of any size."""
    patch = (D, 3 * PATCH * PATCH) if naflex else (D, 3, PATCH, PATCH)
    pool = f"{image}head."
    shapes: Shapes = {
        f"{image}embeddings.patch_embedding.weight": patch,
        f"{image}embeddings.patch_embedding.bias": (D,),
        f"{image}embeddings.position_embedding.weight": (GRID * GRID, D),
        f"{pool}probe": (1, 1, D),
        f"{pool}attention.in_proj_weight": (3 * D, D),
        f"{pool}attention.in_proj_bias": (3 * D,),
        **_linear(f"{pool}attention.out_proj", D, D),
        **_norm(f"{pool}layernorm"),
        **_linear(f"{pool}mlp.fc1", HIDDEN, D),
        **_linear(f"{pool}mlp.fc2", D, HIDDEN),
        **_norm(f"{image}post_layernorm"),
        **_hf_text(text),
        **_linear(f"{text}head", D, D),
        **{"logit_scale": (1,), "logit_bias": (1,)},
    }
    for i in range(DEPTH):
        shapes |= _hf_layer(f"{image}encoder.layers.{i}.")
    return filled(shapes)


def hf_clip(joint: int = 6) -> dict[str, Tensor]:
    """Weights of ``CLIPModel`` and ``MetaClip2Model``."""
    shapes: Shapes = {
        "vision_model.embeddings.class_embedding": (D,),
        "vision_model.embeddings.patch_embedding.weight": (D, 3, PATCH, PATCH),
        "vision_model.embeddings.position_embedding.weight": (1 + GRID * GRID, D),
        **_norm("vision_model.pre_layrnorm"),
        **_norm("vision_model.post_layernorm"),
        **_hf_text("text_model."),
        **{"visual_projection.weight": (joint, D), "text_projection.weight": (joint, D)},
        "logit_scale": (),
    }
    for i in range(DEPTH):
        shapes |= _hf_layer(f"vision_model.encoder.layers.{i}.")
    return filled(shapes)


def hf_dinov3(gated: bool = False, start: str = "layer.") -> dict[str, Tensor]:
    """Weights of ``DINOv3ViTModel``, whose k has no bias."""
    shapes: Shapes = {
        **{"embeddings.cls_token": (1, 1, D), "embeddings.mask_token": (1, 1, D)},
        "embeddings.register_tokens": (1, 4, D),
        "embeddings.patch_embeddings.weight": (D, 3, PATCH, PATCH),
        "embeddings.patch_embeddings.bias": (D,),
        **_norm("norm"),
    }
    for i in range(DEPTH):
        block = f"{start}{i}."
        for part in "qkvo":
            shapes |= _linear(f"{block}attention.{part}_proj", D, D)
        del shapes[f"{block}attention.k_proj.bias"]
        shapes |= _norm(f"{block}norm1") | _norm(f"{block}norm2")
        shapes |= {f"{block}layer_scale{k}.lambda1": (D,) for k in (1, 2)}
        for part in ("up_proj", "gate_proj")[: 1 + gated]:
            shapes |= _linear(f"{block}mlp.{part}", HIDDEN, D)
        shapes |= _linear(f"{block}mlp.down_proj", D, HIDDEN)
    return filled(shapes)
