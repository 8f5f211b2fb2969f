"""Names of Perception Encoder's own files: OpenAI's with a pool, to timm's under ``visual.trunk``.

Source: the official repository, and timm 1.0.31 by equality of forward passes. The text tower has
open_clip's names. timm has a bias behind the pool, which is zero.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mmclipdis.clip.weights.renaming import (
    LEAF,
    SCALARS,
    LayoutReport,
    Rule,
    add_zero_bias,
    first_third,
    inside,
    last_two_thirds,
    prefixed,
    renamed_by,
    rule,
    transposed,
    with_batch,
)

_BLOCK = (
    rule(rf"ln_([12]){LEAF}", r"norm\1.\2"),
    rule(r"attn\.in_proj_(weight|bias)", r"attn.qkv.\1"),
    rule(rf"attn\.out_proj{LEAF}", r"attn.proj.\1"),
    rule(rf"mlp\.c_fc{LEAF}", r"mlp.fc1.\1"),
    rule(rf"mlp\.c_proj{LEAF}", r"mlp.fc2.\1"),
    rule(r"ls_([12])\.gamma", r"gamma_\1"),
)
_IMAGE = (
    rule(r"conv1\.weight", "patch_embed.proj.weight"),
    rule(r"class_embedding", "cls_token", with_batch),
    rule(r"positional_embedding", "pos_embed", with_batch),
    rule(rf"ln_pre{LEAF}", r"norm_pre.\1"),
    *inside(_BLOCK, r"transformer\.resblocks\.(\d+)\.", r"blocks.\1."),
    rule(rf"ln_post{LEAF}", r"norm.\1"),
    rule(r"attn_pool\.probe", "attn_pool.latent"),
    Rule(
        r"attn_pool\.attn\.in_proj_(weight|bias)",
        (r"attn_pool.q.\1", r"attn_pool.kv.\1"),
        (first_third, last_two_thirds),
    ),
    rule(rf"attn_pool\.attn\.out_proj{LEAF}", r"attn_pool.proj.\1"),
    rule(rf"attn_pool\.layernorm{LEAF}", r"attn_pool.norm.\1"),
    rule(rf"attn_pool\.mlp\.c_fc{LEAF}", r"attn_pool.mlp.fc1.\1"),
    rule(rf"attn_pool\.mlp\.c_proj{LEAF}", r"attn_pool.mlp.fc2.\1"),
    rule(r"proj", "head.weight", transposed),
)
_TEXT = (
    rule(r"((?:token_embedding|transformer|ln_final)\..*)", r"\1"),
    rule(r"(positional_embedding|text_projection)", r"\1"),
    SCALARS,
)
_COMPUTED = (
    (r"(visual\.)?rope\..*", "RoPE table, computed for every image size"),
    (r"attn_mask", "causal mask of the text tower, a constant"),
)


def pe_to_open_clip(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], LayoutReport]:
    """Rename an official PE-Core: its image tower (bare or ``visual.``) and any text tower.

    Raises:
        ValueError: for an entry that is not known of it.
    """
    if "visual.attn_pool.probe" in state:
        rules = (*prefixed(_IMAGE, r"visual\.", "visual.trunk."), *_TEXT)
    else:
        rules = prefixed(_IMAGE, "", "visual.trunk.")
    out, report = renamed_by(rules, state, "an official Perception Encoder", _COMPUTED)
    if "visual.trunk.head.weight" in out:
        add_zero_bias(out, report, "visual.trunk.head.weight")
    return out, report
