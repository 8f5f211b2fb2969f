"""Names of dino.txt: its head on the tokens of DINOv2 or DINOv3, and its text tower.

The official files hold the head and the text tower (v3: one file, v2: two); that of the backbone is
apart (:mod:`mmclipdis.clip.weights.dino_layout`). The head becomes two of timm's ``EvaBlock`` under
``visual.head.blocks``, the text tower open_clip's, whose biases of q, k and v are zero here.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mmclipdis.clip.weights.dino_layout import EVA_BLOCK
from mmclipdis.clip.weights.renaming import (
    LEAF,
    LayoutReport,
    Rule,
    add_zero_bias,
    inside,
    renamed_by,
    rule,
    scalar,
    transposed,
)

_HEAD = r"(?:(?:visual_model\.)?head\.)?"
_TEXT = r"(?:text_model\.)?"


def _first_half(value: Tensor) -> Tensor:
    return value[: len(value) // 2]


def _second_half(value: Tensor) -> Tensor:
    return value[len(value) // 2 :]


_HEAD_BLOCK = (
    *EVA_BLOCK,
    Rule(rf"mlp\.w12{LEAF}", (r"mlp.fc1_g.\1", r"mlp.fc1_x.\1"), (_first_half, _second_half)),
)
_TEXT_BLOCK = (
    rule(rf"attention_norm{LEAF}", r"ln_1.\1"),
    rule(r"attention\.qkv\.(weight|bias)", r"attn.in_proj_\1"),
    rule(rf"attention\.proj{LEAF}", r"attn.out_proj.\1"),
    rule(rf"ffn_norm{LEAF}", r"ln_2.\1"),
    rule(rf"feed_forward\.fc1{LEAF}", r"mlp.c_fc.\1"),
    rule(rf"feed_forward\.fc2{LEAF}", r"mlp.c_proj.\1"),
)
_RULES = (
    *inside(_HEAD_BLOCK, _HEAD + r"block(?:s|_list)\.(\d+)\.", r"visual.head.blocks.\1."),
    rule(_HEAD + rf"ln_final{LEAF}", r"visual.head.ln_final.\1"),
    rule(_TEXT + r"backbone\.token_embedding\.weight", "token_embedding.weight"),
    rule(_TEXT + r"backbone\.positional_embedding", "positional_embedding"),
    *inside(_TEXT_BLOCK, _TEXT + r"backbone\.blocks\.(\d+)\.", r"transformer.resblocks.\1."),
    rule(_TEXT + rf"backbone\.ln_final{LEAF}", r"ln_final.\1"),
    rule(_TEXT + r"head\.linear_projection\.weight", "text_projection", transposed),
    rule(r"logit_scale", "logit_scale", scalar),
)
_CONSTANTS = ((r".*(causal_mask|attn_mask)", "causal mask, a constant"),)


def dinotxt_to_open_clip(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], LayoutReport]:
    """Rename a file of dino.txt: the head, the text tower, or both.

    Raises:
        ValueError: for an entry that is not known of it.
    """
    out, report = renamed_by(_RULES, state, "an official dino.txt", _CONSTANTS)
    for name in list(out):
        if name.endswith("attn.in_proj_weight") and name.replace("weight", "bias") not in out:
            add_zero_bias(out, report, name)
    return out, report
