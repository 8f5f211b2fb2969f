"""Weights that were read, and models whose weights come in several files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mmclipdis.clip.towers.readout import AnyReadout
from mmclipdis.clip.weights.layouts import SCALARS, ClipEntries
from mmclipdis.clip.weights.renaming import LayoutReport
from mmclipdis.clip.weights.tower_size import tower_size

#: Text towers that are another CLIP's: model of the house -> kinds of image tower beside them.
_TEXT_ALONE = {"talk2dino": ("OpenAI-style",)}
#: Those whose weights come in two files: model of the house -> a weight of each, and what it is.
_TEXT_PARTS = {
    "talk2dino": {
        "token_embedding.weight": "CLIP",
        "linear_layer.weight": "Talk2DINO's map from CLIP",
    }
}


@dataclass(frozen=True)
class ClipCheckpoint:
    """Weights in open_clip's layout, and what the file said of itself.

    Attributes:
        state_dict: open_clip ``CLIP`` names to tensors; image, text, or both towers.
        quick_gelu: Whether they were trained with QuickGELU; None if nothing says so.
        source: The tag or file they came from, for messages.
        readout: The readout that the image tower was trained for; None if nothing says so.
        report: What became of every key of the file.
        unread: What text tower the file holds that is not read, in words; empty without one.
    """

    state_dict: dict[str, Tensor]
    quick_gelu: bool | None
    source: str
    readout: AnyReadout | None = None
    report: LayoutReport = field(default_factory=LayoutReport)
    unread: str = ""


def joined(one: ClipCheckpoint, other: ClipCheckpoint) -> ClipCheckpoint:
    """Two parts of a model as one.

    Raises:
        ValueError: if both hold a weight.
    """
    twice = sorted(one.state_dict.keys() & other.state_dict.keys() - set(SCALARS))
    if twice:
        raise ValueError(
            f"{one.source!r} and {other.source!r} both hold {twice[0]!r}; a list of files is for "
            "the parts of one model: leave out one of them"
        )
    ours, theirs = one.report, other.report
    report = LayoutReport(
        ours.renamed | theirs.renamed,
        ours.kept + theirs.kept,
        ours.dropped | theirs.dropped,
        ours.added | theirs.added,
    )
    return ClipCheckpoint(
        {**other.state_dict, **one.state_dict},
        other.quick_gelu if one.quick_gelu is None else one.quick_gelu,
        f"{one.source}, {other.source}",
        one.readout or other.readout,
        report,
        one.unread or other.unread,
    )


def missing_text(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> str | None:
    """What to do where ``state`` holds one part of a text tower alone; None if it does not."""
    parts = _TEXT_PARTS.get(config["text_cfg"].get("house_model", ""), {})
    absent = [what for name, what in parts.items() if name not in state]
    if not absent:
        return None
    return f"give the file of {' and '.join(absent)}, too: checkpoint=[CLIP, MAP]"


def without_other_image(config: Mapping[str, Any], found: ClipEntries) -> ClipEntries:
    """Entries without CLIP's image tower, where a model config takes its text tower alone."""
    size = tower_size(found.state)
    others = _TEXT_ALONE.get(config["text_cfg"].get("house_model", ""), ())
    if size is None or size.kind not in others:
        return found
    report = found.report
    for old, new in report.names.items():
        if new.startswith("visual."):
            report.renamed.pop(old, None)
            report.dropped[old] = "image tower of CLIP, of which the arch takes the text tower"
    report.kept = [name for name in report.kept if name not in report.dropped]
    state = {k: v for k, v in found.state.items() if not k.startswith("visual.")}
    return found._replace(state=state, image_prefix=None)
