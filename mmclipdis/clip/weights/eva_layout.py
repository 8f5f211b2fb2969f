"""Names of EVA02-CLIP's weights: those of the official code, and those of open_clip (timm).

EVA-CLIP, CLIPSelf and DeCLIP save ``visual.blocks.*``; open_clip holds the same tower as timm's
under ``visual.trunk.*``. The text tower has the same names in both. Every key of a conversion is
reported: renamed, kept, or dropped with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from mmclipdis.clip.weights.renaming import LayoutReport, Rule, renamed_by, rule

OFFICIAL, OPEN_CLIP = "visual.", "visual.trunk."

#: Start of a name inside a block: (official, open_clip).
_BLOCK_NAMES = (
    ("attn.inner_attn_ln.", "attn.norm."),
    ("attn.q_bias", "attn.q_proj.bias"),
    ("attn.v_bias", "attn.v_proj.bias"),
    ("mlp.ffn_ln.", "mlp.norm."),
    ("mlp.w1.", "mlp.fc1_g."),  # the gate of SwiGLU
    ("mlp.w2.", "mlp.fc1_x."),
    ("mlp.w3.", "mlp.fc2."),
)

#: What is computed from the architecture: (pattern of the key, reason why it is dropped).
_COMPUTED = (
    (r".*freqs_(cos|sin).*", "RoPE table, computed for every image size"),
    (r"(.*\.)?attn_mask", "causal mask of the text tower, a constant"),
)


def _rules(old: str, new: str, blocks: tuple[tuple[str, str], ...]) -> tuple[Rule, ...]:
    """From tower names behind ``old`` to those behind ``new``; the rest keeps its names."""
    start = re.escape(old)
    parts = (
        rule(rf"{start}(blocks\.\d+\.){re.escape(before)}(.*)", rf"{new}\1{after}\2")
        for before, after in blocks
    )
    others = (rule(r"text\.logit_scale", "logit_scale"), rule(r"(.*)", r"\1"))
    return (*parts, rule(rf"{start}(.*)", rf"{new}\1"), *others)


_FORWARD = _rules(OFFICIAL, OPEN_CLIP, _BLOCK_NAMES)
_BACKWARD = _rules(OPEN_CLIP, OFFICIAL, tuple((new, old) for old, new in _BLOCK_NAMES))


def official_to_open_clip(
    state: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], LayoutReport]:
    """Rename an official EVA02-CLIP state dict to open_clip's names.

    Args:
        state: ``visual.*`` and, if there, ``text.*`` and ``logit_scale`` (in old files
            ``text.logit_scale``). Tables of RoPE are dropped.

    Returns:
        What open_clip's model of the same name loads strictly, and the report.

    Raises:
        ValueError: for an EVA tower of another design (EVA01, EVA02-E), or two keys of one weight.
    """
    if OFFICIAL + "blocks.0.mlp.w1.weight" not in state or any(".attn.qkv." in k for k in state):
        raise ValueError(
            "an EVA tower without separate q, k, v or without SwiGLU (EVA01, EVA02-E) is not "
            "supported; supported are EVA02-B-16, EVA02-L-14 and EVA02-L-14-336"
        )
    return renamed_by(_FORWARD, state, "an EVA-CLIP", _COMPUTED)


def open_clip_to_official(
    state: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], LayoutReport]:
    """Inverse of :func:`official_to_open_clip`; the tables of RoPE are not written.

    Raises:
        ValueError: for an EVA tower of another design (EVA01, EVA02-E).
    """
    if OPEN_CLIP + "blocks.0.mlp.fc1_g.weight" not in state:
        raise ValueError(
            "an EVA tower without SwiGLU (EVA01, EVA02-E) has no known official layout; supported "
            "are EVA02-B-16, EVA02-L-14 and EVA02-L-14-336"
        )
    return renamed_by(_BACKWARD, state, "an EVA-CLIP", _COMPUTED)


def computed_reason(key: str) -> str | None:
    """Why ``key`` is no weight of CLIP but follows from its architecture; None for a weight."""
    return next((reason for pattern, reason in _COMPUTED if re.fullmatch(pattern, key)), None)
