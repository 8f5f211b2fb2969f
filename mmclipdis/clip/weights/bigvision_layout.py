"""Names of big_vision's ``.npz`` files of SigLIP and SigLIP 2, as JAX lays the weights out.

Source: open_clip 3.3's reader, by equality of its result. Dense kernels are ``(in, out)``, those of
attention ``(in, heads, width)``, and blocks that were scanned are stacked along a first axis.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mmclipdis.clip.weights.renaming import (
    LayoutReport,
    Rule,
    inside,
    prefixed,
    renamed_by,
    rule,
    scalar,
    transposed,
    without_batch,
)

_MHA, _QKV = "MultiHeadDotProductAttention_0/", ("query", "key", "value")


def _heads_in(kernel: Tensor) -> Tensor:
    """``(D, M, d)`` of q, k or v as ``(D, D)`` of a linear layer."""
    return kernel.flatten(1).T.contiguous()


def _heads_out(kernel: Tensor) -> Tensor:
    """``(M, d, D)`` of the output as ``(D, D)`` of a linear layer."""
    return kernel.flatten(0, 1).T.contiguous()


def _flat(bias: Tensor) -> Tensor:
    return bias.flatten()


def _convolution(kernel: Tensor) -> Tensor:
    """``(P, P, 3, D)`` as ``(D, 3, P, P)``."""
    return kernel.permute(3, 2, 0, 1).contiguous()


def _norm(old: str, new: str) -> tuple[Rule, ...]:
    return (rule(f"{old}/scale", f"{new}.weight"), rule(f"{old}/bias", f"{new}.bias"))


def _dense(old: str, new: str) -> tuple[Rule, ...]:
    weight = rule(f"{old}/kernel", f"{new}.weight", transposed)
    return (weight, rule(f"{old}/bias", f"{new}.bias"))


def _attention(names: Mapping[str, str], out: str) -> tuple[Rule, ...]:
    """Rules of an attention: JAX's part -> its weights here, with ``{}`` for weight or bias."""
    found = [
        one
        for old, new in names.items()
        for one in (
            rule(f"{_MHA}{old}/kernel", new.format("weight"), _heads_in),
            rule(f"{_MHA}{old}/bias", new.format("bias"), _flat),
        )
    ]
    weight = rule(f"{_MHA}out/kernel", f"{out}.weight", _heads_out)
    return (*found, weight, rule(f"{_MHA}out/bias", f"{out}.bias"))


def _fused(name: str) -> dict[str, str]:
    """Parts of a fused q, k, v."""
    return {old: f"{name}[{letter}|qkv]" for old, letter in zip(_QKV, "qkv", strict=True)}


_TIMM_BLOCK = (
    *_norm("LayerNorm_0", "norm1"),
    *_attention(_fused("attn.qkv.{}"), "attn.proj"),
    *_norm("LayerNorm_1", "norm2"),
    *_dense("MlpBlock_0/Dense_0", "mlp.fc1"),
    *_dense("MlpBlock_0/Dense_1", "mlp.fc2"),
)
_CLIP_BLOCK = (
    *_norm("LayerNorm_0", "ln_1"),
    *_attention(_fused("attn.in_proj_{}"), "attn.out_proj"),
    *_norm("LayerNorm_1", "ln_2"),
    *_dense("MlpBlock_0/Dense_0", "mlp.c_fc"),
    *_dense("MlpBlock_0/Dense_1", "mlp.c_proj"),
)
_POOL_NAMES = {"query": "q.{}", "key": "kv.{}[k|kv]", "value": "kv.{}[v|kv]"}
_POOL = (
    rule("probe", "latent"),
    *_attention(_POOL_NAMES, "proj"),
    *_norm("LayerNorm_0", "norm"),
    *_dense("MlpBlock_0/Dense_0", "mlp.fc1"),
    *_dense("MlpBlock_0/Dense_1", "mlp.fc2"),
)
_NUMBERED = r"encoderblock_(\d+)/"
_IMAGE = (
    rule("embedding/kernel", "patch_embed.proj.weight", _convolution),
    rule("embedding/bias", "patch_embed.proj.bias"),
    rule("pos_embedding", "pos_embed"),
    *inside(_TIMM_BLOCK, "Transformer/" + _NUMBERED, r"blocks.\1."),
    *_norm("Transformer/encoder_norm", "norm"),
    *prefixed(_POOL, "MAPHead_0/", "attn_pool."),
)
_TEXT = (
    rule("Embed_0/embedding", "token_embedding.weight"),
    rule("pos_embedding", "positional_embedding", without_batch),
    *inside(_CLIP_BLOCK, "Encoder_0/" + _NUMBERED, r"transformer.resblocks.\1."),
    *_norm("Encoder_0/encoder_norm", "ln_final"),
    *_dense("head", "text_projection"),
)
_RULES = (
    *prefixed(_IMAGE, "img/", "visual.trunk."),
    *prefixed(_TEXT, "txt/", ""),
    rule("t", "logit_scale", scalar),
    rule("b", "logit_bias", scalar),
)


def bigvision_to_open_clip(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], LayoutReport]:
    """Rename a SigLIP or SigLIP 2 of big_vision, with ``params/`` before its names or not.

    Raises:
        ValueError: for an entry that is not known of it.
    """
    optimizer = ((r"(?:opt|extra)/.*", "state of the training"),)
    start = "params/" if any(key.startswith("params/") for key in state) else ""
    rules = prefixed(_RULES, start, "")
    return renamed_by(rules, _unstacked(state), "a SigLIP of big_vision", optimizer)


def _unstacked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Blocks one by one: ``encoderblock/NAME`` of ``(blocks, ...)`` as ``encoderblock_i/NAME``."""
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        if "/encoderblock/" not in key:
            out[key] = value
            continue
        for number, part in enumerate(value):
            out[key.replace("/encoderblock/", f"/encoderblock_{number}/")] = part
    return out
