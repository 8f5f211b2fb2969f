"""Names of EVA02-CLIP's weights: those of the official code, and those of open_clip (timm).

EVA-CLIP, CLIPSelf and DeCLIP save ``visual.blocks.*``; open_clip holds the same tower as timm's
under ``visual.trunk.*``. The text tower has the same names in both. Every key of a conversion is
reported: renamed, kept, or dropped with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

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
    (re.compile(r"freqs_(cos|sin)"), "RoPE table, computed for every image size"),
    (re.compile(r"(^|\.)attn_mask$"), "causal mask of the text tower, a constant"),
)


@dataclass
class LayoutReport:
    """What became of every key of a checkpoint.

    Attributes:
        renamed: Old name -> new name.
        kept: Names that stayed.
        dropped: Name -> reason.
        added: New name -> where its value comes from.
        assumed: What neither the checkpoint nor the user said; empty if nothing.
    """

    renamed: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    added: dict[str, str] = field(default_factory=dict)
    assumed: str = ""

    def note(self, old: str, new: str) -> None:
        """Record that the entry ``old`` is now called ``new``."""
        if old == new:
            self.kept.append(old)
        else:
            self.renamed[old] = new

    @property
    def names(self) -> dict[str, str]:
        """Old -> new name of every entry that is still there."""
        return {**{key: key for key in self.kept}, **self.renamed}

    def summary(self) -> str:
        """The counts in one line."""
        counts = [f"{len(self.renamed)} keys renamed", f"{len(self.kept)} kept"]
        counts.append(f"{len(self.dropped)} dropped")
        if self.added:
            counts.append(f"{len(self.added)} added")
        return ", ".join(counts)

    def __str__(self) -> str:
        lines = [f"{old} -> {new}" for old, new in self.renamed.items()]
        lines += [f"{key} kept" for key in self.kept]
        lines += [f"{key} dropped: {reason}" for key, reason in self.dropped.items()]
        lines += [f"{key} added: {source}" for key, source in self.added.items()]
        return "\n".join([*lines, self.summary()])


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
    return _renamed(state, lambda key: _swap(key, OFFICIAL, OPEN_CLIP, _BLOCK_NAMES))


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
    backward = tuple((new, old) for old, new in _BLOCK_NAMES)
    return _renamed(state, lambda key: _swap(key, OPEN_CLIP, OFFICIAL, backward))


def computed_reason(key: str) -> str | None:
    """Why ``key`` is no weight of CLIP but follows from its architecture; None for a weight."""
    return next((reason for pattern, reason in _COMPUTED if pattern.search(key)), None)


def _renamed(
    state: Mapping[str, Tensor], rename: Callable[[str], str]
) -> tuple[dict[str, Tensor], LayoutReport]:
    out: dict[str, Tensor] = {}
    report = LayoutReport()
    for key, value in state.items():
        reason = computed_reason(key)
        if reason is not None:
            report.dropped[key] = reason
            continue
        name = rename(key)
        if name in out:
            raise ValueError(f"two entries of the checkpoint become {name!r}, one is {key!r}")
        out[name] = value
        report.note(key, name)
    return out, report


def _swap(key: str, old: str, new: str, names: tuple[tuple[str, str], ...]) -> str:
    if not key.startswith("visual."):
        return "logit_scale" if key == "text.logit_scale" else key
    rest = key.removeprefix(old)
    match = re.match(r"(blocks\.\d+\.)(.+)", rest)
    if match:
        block, leaf = match.groups()
        for before, after in names:
            if leaf.startswith(before):
                rest = block + after + leaf.removeprefix(before)
                break
    return new + rest
