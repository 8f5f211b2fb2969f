"""Names of Apple's own files of MobileCLIP, to timm's and open_clip's.

Source: open_clip 3.3's and timm 1.0.31's converters, by equality of their results.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from timm.models.fastvit import checkpoint_filter_fn
from torch import Tensor, nn

from mmclipdis.clip.weights.renaming import (
    LEAF,
    SCALARS,
    LayoutReport,
    add_zero_bias,
    inside,
    prefixed,
    renamed_by,
    rule,
    transposed,
    with_batch,
    without_batch,
)

_IMAGE = "image_encoder.model."
_TEXT_BLOCK = (
    rule(rf"pre_norm_mha\.0{LEAF}", r"ln_1.\1"),
    rule(r"pre_norm_mha\.1\.qkv_proj\.(weight|bias)", r"attn.in_proj_\1"),
    rule(rf"pre_norm_mha\.1\.out_proj{LEAF}", r"attn.out_proj.\1"),
    rule(rf"pre_norm_ffn\.0{LEAF}", r"ln_2.\1"),
    rule(rf"pre_norm_ffn\.1{LEAF}", r"mlp.c_fc.\1"),
    rule(rf"pre_norm_ffn\.4{LEAF}", r"mlp.c_proj.\1"),
)
_TEXT = (
    rule(r"embedding_layer\.weight", "token_embedding.weight"),
    rule(r"positional_embedding\.pos_embed\.pos_embed", "positional_embedding", without_batch),
    *inside(_TEXT_BLOCK, r"transformer\.(\d+)\.", r"transformer.resblocks.\1."),
    rule(rf"final_layer_norm{LEAF}", r"ln_final.\1"),
    rule(r"projection_layer", "text_projection"),
)
_REST = (*prefixed(_TEXT, r"text_encoder\.", ""), SCALARS)
_BLOCK = (
    rule(rf"pre_norm_mha\.0{LEAF}", r"norm1.\1"),
    rule(rf"pre_norm_mha\.1\.qkv_proj{LEAF}", r"attn.qkv.\1"),
    rule(rf"pre_norm_mha\.1\.out_proj{LEAF}", r"attn.proj.\1"),
    rule(rf"pre_norm_ffn\.0{LEAF}", r"norm2.\1"),
    rule(rf"pre_norm_ffn\.1{LEAF}", r"mlp.fc1.\1"),
    rule(rf"pre_norm_ffn\.4{LEAF}", r"mlp.fc2.\1"),
)
_VIT = (
    rule(r"cls_token", "cls_token"),
    rule(r"pos_embed\.pos_embed\.pos_embed", "pos_embed", with_batch),
    rule(r"patch_emb\.(\d+)\.block\.conv\.(.*)", r"patch_embed.backbone.\1.conv.\2"),
    rule(r"patch_emb\.(\d+)\.block\.norm\.(.*)", r"patch_embed.backbone.\1.bn.\2"),
    *inside(_BLOCK, r"transformer\.(\d+)\.", r"blocks.\1."),
    rule(rf"post_transformer_norm{LEAF}", r"norm.\1"),
    rule(r"classifier\.proj", "head.weight", transposed),
)


def mobileclip_to_open_clip(
    state: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], LayoutReport]:
    """Rename an original MobileCLIP: that of B, or one of FastViT's, before re-parameterisation.

    Raises:
        ValueError: for an entry that is not known of it.
    """
    what = "an original MobileCLIP"
    if _IMAGE + "patch_emb.0.block.conv.weight" in state:
        image = prefixed(_VIT, r"image_encoder\.model\.", "visual.trunk.")
        out, report = renamed_by((*image, *_REST), state, what)
        add_zero_bias(out, report, "visual.trunk.head.weight")
        return out, report
    # a view of its own each, by which the names are told apart after timm's filter
    own = {key: value.view_as(value) for key, value in state.items() if key.startswith(_IMAGE)}
    rest = {key: value for key, value in state.items() if key not in own}
    out, report = renamed_by(_REST, rest, what)
    # the filter asks the model only whether its classifier is linear
    timm_names: Any = checkpoint_filter_fn
    model = SimpleNamespace(head=SimpleNamespace(fc=nn.Linear(1, 1)))
    before = {id(value): key for key, value in own.items()}
    for name, value in timm_names(dict(own), model).items():
        out["visual.trunk." + name] = value
        if name == "head.fc.bias":
            report.added["visual.trunk." + name] = "zero: the file has none"
        else:
            old = before.get(id(value), _IMAGE + "head.proj")
            report.note(old, "visual.trunk." + name)
    return out, report
