"""Names of Perception Encoder's own files: OpenAI's with a pool, to timm's under ``visual.trunk``.

Source: the official repository, and timm 1.0.31 by equality of forward passes. The text tower has
open_clip's names. timm has a bias behind the pool, which is zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mmclipdis.clip.weights.renaming import (
    LayoutReport,
    Rule,
    first_third,
    inside,
    last_two_thirds,
    prefixed,
    renamed_by,
    rule,
    scalar,
    transposed,
    with_batch,
)

_LEAF = r"\.(weight|bias)"
_BLOCK = (
    rule(rf"ln_([12]){_LEAF}", r"norm\1.\2"),
    rule(r"attn\.in_proj_(weight|bias)", r"attn.qkv.\1"),
    rule(rf"attn\.out_proj{_LEAF}", r"attn.proj.\1"),
    rule(rf"mlp\.c_fc{_LEAF}", r"mlp.fc1.\1"),
    rule(rf"mlp\.c_proj{_LEAF}", r"mlp.fc2.\1"),
    rule(r"ls_([12])\.gamma", r"gamma_\1"),
)
_IMAGE = (
    rule(r"conv1\.weight", "patch_embed.proj.weight"),
    rule(r"class_embedding", "cls_token", with_batch),
    rule(r"positional_embedding", "pos_embed", with_batch),
    rule(rf"ln_pre{_LEAF}", r"norm_pre.\1"),
    *inside(_BLOCK, r"transformer\.resblocks\.(\d+)\.", r"blocks.\1."),
    rule(rf"ln_post{_LEAF}", r"norm.\1"),
    rule(r"attn_pool\.probe", "attn_pool.latent"),
    Rule(
        r"attn_pool\.attn\.in_proj_(weight|bias)",
        (r"attn_pool.q.\1", r"attn_pool.kv.\1"),
        (first_third, last_two_thirds),
    ),
    rule(rf"attn_pool\.attn\.out_proj{_LEAF}", r"attn_pool.proj.\1"),
    rule(rf"attn_pool\.layernorm{_LEAF}", r"attn_pool.norm.\1"),
    rule(rf"attn_pool\.mlp\.c_fc{_LEAF}", r"attn_pool.mlp.fc1.\1"),
    rule(rf"attn_pool\.mlp\.c_proj{_LEAF}", r"attn_pool.mlp.fc2.\1"),
    rule(r"proj", "head.weight", transposed),
)
_TEXT = (
    rule(r"((?:token_embedding|transformer|ln_final)\..*)", r"\1"),
    rule(r"(positional_embedding|text_projection)", r"\1"),
    rule(r"(logit_scale|logit_bias)", r"\1", scalar),
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
    head = out.get("visual.trunk.head.weight")
    if head is not None:
        out["visual.trunk.head.bias"] = torch.zeros(len(head), dtype=head.dtype)
        report.added["visual.trunk.head.bias"] = "zero: the file has none"
    return out, report
