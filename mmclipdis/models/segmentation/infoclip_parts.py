"""What InfoCLIP is made of: its options, and its teacher."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

ENCODERS = ("image_encoder", "text_encoder")
#: Options of both losses, with the published weights.
COMPRESSION: Mapping[str, Any] = {"weight": 1.0}
DISTILLATION: Mapping[str, Any] = {
    "weight": 1.0,
    "kind": "mi",
    "temperature": 1.0,
    "detach_teacher": False,
}


def check_segmentor(segmentor: Any) -> None:
    """Refuse a segmentor without the parts that InfoCLIP uses.

    Raises:
        TypeError: naming the first that is missing.
    """
    needed = (*ENCODERS, "clip_size", "class_embeddings", "losses_of", "set_vocabulary")
    missing = [name for name in needed if not hasattr(segmentor, name)]
    if missing:
        raise TypeError(
            f"InfoCLIP cannot teach a {type(segmentor).__name__}, which has no {missing[0]}: give "
            "segmentor=dict(type='CATSeg', ...) or a model with the same parts"
        )


def check_losses(
    compression: Mapping[str, Any] | None, distillation: Mapping[str, Any], learnable: bool
) -> None:
    """Refuse unknown options, and losses that reach nothing.

    Args:
        compression, distillation: As in InfoCLIP.
        learnable: Whether the relation has parameters.

    Raises:
        ValueError: naming option and remedy.
    """
    if distillation is None:
        raise ValueError(
            "InfoCLIP without distillation teaches the student nothing, since compression reaches "
            "the LPAM alone: give distillation=dict(...), or train the segmentor by itself"
        )
    for name, given, known in (
        ("compression", compression, COMPRESSION),
        ("distillation", distillation, DISTILLATION),
    ):
        unknown = sorted(set(given or ()) - set(known))
        if unknown:
            raise ValueError(f"InfoCLIP.{name} has no {unknown}, it takes {', '.join(known)}")
    if compression is not None and not learnable:
        raise ValueError(
            "a fixed relation (lpam.relation='cosine') has nothing that compression could shape: "
            "give compression=None, or relation='lpam'"
        )


def teacher_configs(
    segmentor: Mapping[str, Any], teacher: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]] | None:
    """Configs of both frozen encoders; None where the teacher is the student's start.

    Raises:
        ValueError: ``teacher`` names something else, or nothing.
    """
    if teacher is None:
        return None
    unknown = sorted(set(teacher) - set(ENCODERS))
    if unknown or not teacher:
        raise ValueError(f"InfoCLIP.teacher takes {' and '.join(ENCODERS)}, got {sorted(teacher)}")
    return {
        name: {**segmentor[name], **teacher.get(name, {}), "trainable": ()} for name in ENCODERS
    }


def copy_of(encoder: nn.Module) -> Any:
    """Its weights again, but not its tokenizer, which is large and never changes."""
    shared = [getattr(module, "tokenizer", None) for module in encoder.modules()]
    return copy.deepcopy(encoder, {id(item): item for item in shared if item is not None})
