"""Names of Hugging Face's ``transformers``: SigLIP, SigLIP 2, CLIP and MetaCLIP 2.

Source: ``transformers`` 5.24; equality of forward passes, and of the numbers in our tests.
Its SigLIP computes GELU by tanh whatever the size, as JAX does. timm does so for SO400M of patch 16
and g-opt alone. No file says it, so that the arch decides (``docs/weight_files.md``).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mmclipdis.clip.weights.renaming import (
    LEAF,
    SCALARS,
    LayoutReport,
    Rule,
    first_third,
    inside,
    last_two_thirds,
    prefixed,
    renamed_by,
    rule,
    transposed,
    with_batch,
)

_LAYER = r"encoder\.layers\.(\d+)\."
_ATTENTION = r"self_attn\.([qkv])_proj\.(weight|bias)"
#: Parts of a block: with timm's names, and with open_clip's.
_TIMM_BLOCK = (
    rule(rf"layer_norm([12]){LEAF}", r"norm\1.\2"),
    rule(_ATTENTION, r"attn.qkv.\2[\1|qkv]"),
    rule(rf"self_attn\.out_proj{LEAF}", r"attn.proj.\1"),
    rule(rf"mlp\.fc([12]){LEAF}", r"mlp.fc\1.\2"),
)
_CLIP_BLOCK = (
    rule(rf"layer_norm([12]){LEAF}", r"ln_\1.\2"),
    rule(_ATTENTION, r"attn.in_proj_\2[\1|qkv]"),
    rule(rf"self_attn\.out_proj{LEAF}", r"attn.out_proj.\1"),
    rule(rf"mlp\.fc1{LEAF}", r"mlp.c_fc.\1"),
    rule(rf"mlp\.fc2{LEAF}", r"mlp.c_proj.\1"),
)
#: Not weights: what old versions of the library saved.
_BUFFERS = ((r"((vision|text)_model\.)?embeddings\.position_ids", "numbers of the positions"),)


def _patches(weight: Tensor) -> Tensor:
    """Patch weights of a convolution ``(D, 3, P, P)``; NaFlex: a matrix ``(D, P P 3)``.

    Raises:
        ValueError: for a matrix of other than square patches of three channels.
    """
    if weight.ndim == 4:
        return weight
    side = round((weight.shape[1] / 3) ** 0.5)
    if 3 * side * side != weight.shape[1]:
        raise ValueError(f"a patch embedding of {weight.shape[1]} inputs, no square of RGB pixels")
    return weight.reshape(-1, side, side, 3).permute(0, 3, 1, 2).contiguous()


_SIGLIP_IMAGE = (
    rule(r"embeddings\.patch_embedding\.weight", "patch_embed.proj.weight", _patches),
    rule(r"embeddings\.patch_embedding\.bias", "patch_embed.proj.bias"),
    rule(r"embeddings\.position_embedding\.weight", "pos_embed", with_batch),
    *inside(_TIMM_BLOCK, _LAYER, r"blocks.\1."),
    rule(rf"post_layernorm{LEAF}", r"norm.\1"),
    rule(r"head\.probe", "attn_pool.latent"),
    Rule(
        r"head\.attention\.in_proj_(weight|bias)",
        (r"attn_pool.q.\1", r"attn_pool.kv.\1"),
        (first_third, last_two_thirds),
    ),
    rule(rf"head\.attention\.out_proj{LEAF}", r"attn_pool.proj.\1"),
    rule(rf"head\.layernorm{LEAF}", r"attn_pool.norm.\1"),
    rule(rf"head\.mlp\.fc([12]){LEAF}", r"attn_pool.mlp.fc\1.\2"),
)
_TEXT = (
    rule(r"embeddings\.token_embedding\.weight", "token_embedding.weight"),
    rule(r"embeddings\.position_embedding\.weight", "positional_embedding"),
    *inside(_CLIP_BLOCK, _LAYER, r"transformer.resblocks.\1."),
    rule(rf"final_layer_norm{LEAF}", r"ln_final.\1"),
)
_SIGLIP_TEXT = (*_TEXT, rule(rf"head{LEAF}", r"text_projection.\1"))
_CLIP_IMAGE = (
    rule(r"embeddings\.class_embedding", "class_embedding"),
    rule(r"embeddings\.patch_embedding\.weight", "conv1.weight"),
    rule(r"embeddings\.position_embedding\.weight", "positional_embedding"),
    rule(rf"pre_layrnorm{LEAF}", r"ln_pre.\1"),
    *inside(_CLIP_BLOCK, _LAYER, r"transformer.resblocks.\1."),
    rule(rf"post_layernorm{LEAF}", r"ln_post.\1"),
)
#: A tower that was saved alone has no prefix, which a name of it tells.
_ALONE = (
    ("embeddings.patch_embedding.weight", r"vision_model\."),
    ("embeddings.token_embedding.weight", r"text_model\."),
)


def siglip_to_open_clip(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], LayoutReport]:
    """Rename a SigLIP or SigLIP 2 of ``transformers``: either tower, or both.

    SigLIP 2's patch weights of NaFlex become a convolution; its table is that of a square grid.

    Raises:
        ValueError: for an entry that is not known of it.
    """
    rules = (
        *prefixed(_SIGLIP_IMAGE, _prefix(r"vision_model\.", state), "visual.trunk."),
        *prefixed(_SIGLIP_TEXT, _prefix(r"text_model\.", state), ""),
        SCALARS,
    )
    return renamed_by(rules, state, "a Hugging Face SigLIP", _BUFFERS)


def clip_to_open_clip(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], LayoutReport]:
    """Rename a CLIP or MetaCLIP 2 of ``transformers``: either tower, or both.

    Raises:
        ValueError: for an entry that is not known of it.
    """
    rules = (
        *prefixed(_CLIP_IMAGE, r"vision_model\.", "visual."),
        rule(r"visual_projection\.weight", "visual.proj", transposed),
        *prefixed(_TEXT, r"text_model\.", ""),
        rule(r"text_projection\.weight", "text_projection", transposed),
        SCALARS,
    )
    return renamed_by(rules, state, "a Hugging Face CLIP", _BUFFERS)


def _prefix(prefix: str, state: Mapping[str, Tensor]) -> str:
    """What stands before the names of a tower: ``prefix``, or nothing if it was saved alone."""
    return "" if any(own == prefix and name in state for name, own in _ALONE) else prefix
