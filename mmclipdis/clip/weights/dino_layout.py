"""Names of DINOv2 with registers, TIPS's image tower and DINOv3: the official and Hugging Face's.

Source: the official repositories, ``transformers`` 5.24 and timm 1.0.31, by equality of forward
passes. All become timm's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from mmclipdis.clip.weights.renaming import LEAF, Convert, LayoutReport, inside, renamed_by, rule

TRUNK = "visual.trunk."
#: Entries that only the pretraining needs.
_PRETRAINING = (
    (r"(embeddings\.)?mask_token", "token of the pretraining"),
    (r"local_cls_norm\..*", "norm of small crops, of the pretraining"),
    (r"rope_embed\.periods", "RoPE table, computed for every image size"),
    (r".*\.attn\.qkv\.bias_mask", "mask of the bias, which is applied"),
)
#: Parts of a block, to those of timm's EvaBlock; dino.txt's head has them, too.
EVA_BLOCK = (
    rule(rf"(norm[12]|attn\.proj|mlp\.fc[12]){LEAF}", r"\1.\2"),
    rule(r"attn\.(qkv\.weight|[qv]_bias)", r"attn.\1"),
    rule(r"ls([12])\.gamma", r"gamma_\1"),
    rule(rf"mlp\.w1{LEAF}", r"mlp.fc1_g.\1"),
    rule(rf"mlp\.w2{LEAF}", r"mlp.fc1_x.\1"),
    rule(rf"mlp\.w3{LEAF}", r"mlp.fc2.\1"),
)
_STEM = (
    rule(r"cls_token", "cls_token"),
    rule(r"(?:storage|register)_tokens", "reg_token"),
    rule(rf"(patch_embed\.proj|norm){LEAF}", r"\1.\2"),
)
_DINOV3 = (*_STEM, *inside(EVA_BLOCK, r"blocks\.(\d+)\.", r"blocks.\1."))
_HF_BLOCK = (
    rule(rf"norm([12]){LEAF}", r"norm\1.\2"),
    rule(r"attention\.([qkv])_proj\.weight", r"attn.qkv.weight[\1|qkv]"),
    rule(r"attention\.([qv])_proj\.bias", r"attn.\1_bias"),
    rule(rf"attention\.o_proj{LEAF}", r"attn.proj.\1"),
    rule(r"layer_scale([12])\.lambda1", r"gamma_\1"),
    rule(rf"mlp\.down_proj{LEAF}", r"mlp.fc2.\1"),
)
#: Without and with a gate.
_HF_MLPS = (
    (rule(rf"mlp\.up_proj{LEAF}", r"mlp.fc1.\1"),),
    (
        rule(rf"mlp\.gate_proj{LEAF}", r"mlp.fc1_g.\1"),
        rule(rf"mlp\.up_proj{LEAF}", r"mlp.fc1_x.\1"),
    ),
)
_HF_STEM = (
    rule(r"embeddings\.cls_token", "cls_token"),
    rule(r"embeddings\.register_tokens", "reg_token"),
    rule(rf"embeddings\.patch_embeddings{LEAF}", r"patch_embed.proj.\1"),
    rule(rf"norm{LEAF}", r"norm.\1"),
)
_DINOV2_BLOCK = (
    rule(rf"(norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12]){LEAF}", r"\1.\2"),
    rule(r"(ls[12])\.gamma", r"\1.gamma"),
    rule(rf"mlp\.w12{LEAF}", r"mlp.fc1.\1"),
    rule(rf"mlp\.w3{LEAF}", r"mlp.fc2.\1"),
)
_DINOV2 = (
    *_STEM,
    rule(r"pos_embed", "pos_embed"),
    *inside(_DINOV2_BLOCK, r"blocks\.(\d+)\.", r"blocks.\1."),
)


def dinov3_to_timm(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], LayoutReport]:
    """Rename an official DINOv3 to timm's ``vit_*_dinov3``, with the biases of q and v if any.

    Raises:
        ValueError: for an entry that is not known of it, or a bias of k.
    """
    return renamed_by(_DINOV3, split_bias(state), "an official DINOv3", _PRETRAINING)


def hf_dinov3_to_timm(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], LayoutReport]:
    """Rename a DINOv3 of ``transformers`` to timm's ``vit_*_dinov3``.

    Raises:
        ValueError: for an entry that is not known of it.
    """
    gated = any(".mlp.gate_proj." in key for key in state)
    block = (*_HF_BLOCK, *_HF_MLPS[gated])
    rules = (*_HF_STEM, *inside(block, r"(?:model\.)?layer\.(\d+)\.", r"blocks.\1."))
    return renamed_by(rules, state, "a Hugging Face DINOv3", _PRETRAINING)


def dinov2_to_timm(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], LayoutReport]:
    """Rename a DINOv2 with registers, or TIPS's image tower, whose register is its second CLS.

    timm adds the first position to the class token, and keeps a table of the patches alone.

    Raises:
        ValueError: for an entry that is not known of it.
    """
    out, report = renamed_by(_DINOV2, state, "an official DINOv2 or TIPS", _PRETRAINING)
    if "cls_token" in out and "pos_embed" in out:
        out["cls_token"] = out["cls_token"] + out["pos_embed"][:, :1]
        out["pos_embed"] = out["pos_embed"][:, 1:]
        report.added["cls_token (position)"] = "first row of pos_embed"
    return out, report


def split_bias(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with ``q_bias`` and ``v_bias`` for each official ``qkv.bias``, as timm has it.

    Raises:
        ValueError: if a k has a bias that its mask does not take away: timm's has none.
    """
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        stem = key.removesuffix("qkv.bias")
        if stem == key:
            out[key] = value
            continue
        mask = state.get(key + "_mask")
        q, k, v = (value if mask is None else value * mask).chunk(3)
        if bool(k.any()):
            raise ValueError(f"a DINOv3 whose {key!r} gives k a bias, which timm's towers lack")
        out[stem + "q_bias"], out[stem + "v_bias"] = q, v
    return out


def fit_bias(state: Mapping[str, Tensor], own: Collection[str], source: str) -> dict[str, Tensor]:
    """Biases of q and v as a tower has them: zeros left out, or filled in.

    Args:
        state: Weights in timm's names, under any prefix.
        own: Names of the tower's weights.
        source: Where the weights are from, for messages.

    Raises:
        ValueError: for a bias that is not zero and for which the tower has no place.
    """
    pattern = re.compile(r"(.*\.attn\.)[qv]_bias")
    fused = {key.rpartition("qkv.")[0] for key in own if ".attn.qkv." in key}  # also if split
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        match = pattern.fullmatch(key)
        if key in own or match is None or match[1] not in fused:
            out[key] = value
        elif bool(value.any()):
            raise ValueError(
                f"{source!r} has a {key!r} that is not zero, for which the tower has no place; "
                "choose timm's model of the same name with _qkvb, such as "
                "'vit_base_patch16_dinov3_qkvb'"
            )
    for key in own if any(key.endswith("reg_token") for key in state) else ():
        match = pattern.fullmatch(key)
        weight = out.get(match[1] + "qkv.weight") if match else None
        if weight is not None and key not in out:
            out[key] = torch.zeros(len(weight) // 3, dtype=weight.dtype)
    return out


def as_trunk(convert: Convert) -> Convert:
    """The same conversion, to the trunk of an image tower in open_clip's layout."""

    def converted(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], LayoutReport]:
        out, report = convert(state)
        names = {old: TRUNK + new for old, new in report.names.items()}
        added = {TRUNK + name: where for name, where in report.added.items()}
        moved = LayoutReport(names, [], report.dropped, added)
        return {TRUNK + name: value for name, value in out.items()}, moved

    return converted
