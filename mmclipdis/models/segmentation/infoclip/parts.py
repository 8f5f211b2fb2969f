"""What InfoCLIP is made of: its options, and its teacher."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

from mmengine.dist import broadcast
from mmengine.model import ModuleDict
from mmseg.registry import MODELS
from torch import nn

ENCODERS = ("image_encoder", "text_encoder")
#: What distillation compares: relations of pixels and text, or (ours, after MAFT) whole images.
IMAGE = "image"
KINDS = ("mi", "mse", "kl", IMAGE)
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


def has_gradient(module: nn.Module) -> bool:
    """Whether anything in it is trained."""
    return any(parameter.requires_grad for parameter in module.parameters())


def check_losses(
    compression: Mapping[str, Any] | None,
    distillation: Mapping[str, Any] | None,
    learnable: bool,
    student: bool,
) -> None:
    """Refuse unknown options, options without effect, and losses that reach nothing.

    Args:
        compression, distillation: As in InfoCLIP.
        learnable: Whether the relation has parameters.
        student: Whether an encoder of the student is trained.

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
        if given is not None:
            _check_weight(name, given.get("weight", known["weight"]))
    if not student:
        raise ValueError(
            "InfoCLIP has nothing to teach: both encoders of the student are frozen; give one of "
            "them trainable=('q', 'v'), or train the segmentor by itself"
        )
    if distillation.get("kind", "mi") not in KINDS:
        raise ValueError(
            f"InfoCLIP.distillation.kind must be one of {', '.join(KINDS)}, got "
            f"{distillation['kind']!r}"
        )
    if distillation.get("kind") == IMAGE and (compression is not None or learnable):
        raise ValueError(
            "distillation.kind='image' compares whole images, without any relation of pixels and "
            "text: give compression=None and lpam=dict(relation='cosine') with it"
        )
    if compression is not None and not learnable:
        raise ValueError(
            "a fixed relation (lpam.relation='cosine') has nothing that compression could shape: "
            "give compression=None, or relation='lpam'"
        )
    if distillation.get("detach_teacher") and not learnable:
        raise ValueError(
            "a fixed relation (lpam.relation='cosine') of the frozen teacher is a constant anyway: "
            "leave out distillation.detach_teacher, or take relation='lpam'"
        )


def check_image_distillation(student: bool, gram: Mapping[str, Any], temperature: float) -> None:
    """Refuse what has no effect on whole images, see ``distillation.kind='image'``.

    Args:
        student: Whether the student's image encoder is trained.
        gram: Options of Gram matrices.
        temperature: That of ``'kl'``.

    Raises:
        ValueError: naming option and remedy.
    """
    if not student:
        raise ValueError(
            "distillation.kind='image' has nothing to teach: the student's image encoder is "
            "frozen; give it trainable=('q', 'v'), or take another kind"
        )
    usual = {"alpha": 2.0, "gram_axis": "batch", "subsample": None, "temperature": 1.0}
    for name, value in {**gram, "temperature": temperature}.items():
        if value != usual[name]:
            raise ValueError(
                f"distillation.kind='image' reads no {name}, got {value!r}: leave it out"
            )


def _check_weight(loss: str, weight: Any) -> None:
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not number or not (math.isfinite(weight) and weight > 0):
        absent = "compression=None leaves it out" if loss == "compression" else "1.0 is published"
        raise ValueError(
            f"InfoCLIP.{loss}.weight must be a finite number above 0, got {weight!r}; {absent}"
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


def make_teacher(segmentor: Any, configs: Mapping[str, Any] | None) -> ModuleDict:
    """The frozen encoders, on the student's device, the same on all ranks.

    Args:
        segmentor: The student, with the weights that it starts from.
        configs: See :func:`teacher_configs`; None copies the student's encoders.

    Raises:
        ValueError: a joint space of another width.
    """
    if configs is None:
        teacher = ModuleDict({name: copy.deepcopy(getattr(segmentor, name)) for name in ENCODERS})
    else:
        teacher = ModuleDict({name: MODELS.build(config) for name, config in configs.items()})
        teacher.init_weights()
    width = segmentor.image_encoder.embed_dim
    for name, part in teacher.items():
        if part.embed_dim != width:
            raise ValueError(
                f"InfoCLIP.teacher.{name} has {part.embed_dim} channels, the student {width}: take "
                "a teacher of the same joint space"
            )
    device = next(segmentor.parameters()).device
    teacher.requires_grad_(False).eval().to(device)
    for value in teacher.state_dict().values():
        broadcast(value)  # as Runner does with the student: random ones may differ
    return teacher
