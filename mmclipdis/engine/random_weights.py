"""Parts of a model that still hold what their constructors drew, and what is done about it.

mm's tools build models and leave it to others to bring weights: ``Runner.test`` never calls
``init_weights()``, mmseg's ``init_model`` and mmdet's ``init_detector`` even take ``init_cfg``
away, and a checkpoint may lack a part. The result is a plausible number for which nothing was
learned. So a part remembers some of the values that it drew (:func:`watch_weights`) until weights
come: by ``load_state_dict()`` (its own or of a model around it), by ``init_weights()``, by a
training, or by whatever else changes the values. Copies remember likewise. The first use of a part
without weights loads them, stops or warns (:func:`before_use`, :func:`check_weights`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit
from torch import Tensor, nn

from mmclipdis.utils.tracing import untraced

#: ``init_cfg`` of a part for which nobody names a source. None says that there shall be none.
NO_SOURCE: Mapping[str, Any] = {}

#: Attribute of tensors that a model hands itself for a part that its checkpoints leave out.
LEFT_OUT = "left_out"

_SAMPLES = 4


@dataclass
class Drawn:
    """What a part remembers of itself while no weights have come.

    Attributes:
        where: The module within the part whose weights these are.
        names: Those of its parameters that are watched.
        samples: Some values of each one that is not constant.
        came: Names that a checkpoint has brought, if it has not brought all.
        taken_away: Whether ``init_cfg=None`` was given.
        must_train: Whether the part is worth nothing before a training.
        left_out: What holds the part and is in no checkpoint of the model, such as
            ``'vfm of CLIPViT'``.
    """

    where: str
    names: frozenset[str]
    samples: dict[str, Tensor]
    taken_away: bool
    must_train: bool
    came: set[str] = field(default_factory=set)
    left_out: str = ""


def watch_weights(
    part: nn.Module,
    where: str = "",
    *,
    entries: Sequence[nn.Module] = (),
    taken_away: bool = False,
    must_train: bool = False,
) -> None:
    """Remember that a part, newly built, holds random weights, until others come.

    A part that is watched already stays so.

    Args:
        part: What a config names; its ``init_cfg`` may name a source.
        where: The module within it whose weights count, the innermost that is loaded by itself.
        entries: The first modules that compute; :func:`before_use` runs before they do.
        taken_away: The part was given ``init_cfg=None``.
        must_train: Watch what has gradients only; :func:`check_weights` looks for it.
    """
    if "_drawn" in part.__dict__:
        return
    weights = part.get_submodule(where)
    watched = [
        (name, parameter)
        for name, parameter in weights.named_parameters()
        if (parameter.requires_grad or not must_train) and not parameter.is_meta
    ]
    samples = {name: _sample(parameter) for name, parameter in watched}
    drawn = {name: found for name, found in samples.items() if bool((found != found[:1]).any())}
    if not drawn:
        return  # nothing is random
    _remember(part, Drawn(where, frozenset(samples), drawn, taken_away, must_train))
    # partials of functions of this module: a model with such hooks can be pickled and copied
    register: Any = weights.register_load_state_dict_pre_hook
    register(partial(_note_loaded, part))
    for entry in entries:
        entry.register_forward_pre_hook(partial(_before_entry, part))


def note_left_out(holder: nn.Module, name: str) -> None:
    """Remember of all parts in ``holder`` that checkpoints of the model do not bring their weights.

    Args:
        holder: A child that the model leaves out.
        name: What messages call it, such as ``'vfm of CLIPViT'``.
    """
    for part in holder.modules():
        drawn: Drawn | None = getattr(part, "_drawn", None)
        if drawn is not None:
            drawn.left_out = drawn.left_out or name


def is_random(part: nn.Module) -> bool:
    """Whether a watched part (or one that a checkpoint brought in part) holds what it drew."""
    drawn: Drawn | None = getattr(part, "_drawn", None)
    if drawn is None:
        return False
    asked, others = _set_otherwise(part, drawn)
    # a training moves what has gradients; whoever sets weights by hand may have set a few of them
    if others and (drawn.must_train or others == asked):
        _remember(part, None)
        return False
    return True


def take_as_meant(model: nn.Module) -> None:
    """Take the weights that a model holds as those that are wanted, random or not."""
    for part in model.modules():
        if getattr(part, "_drawn", None) is not None:
            _remember(part, None)


def redraw(model: nn.Module) -> None:
    """Look at the random weights anew, after ``init_weights()`` has drawn others."""
    for part in model.modules():
        drawn: Drawn | None = getattr(part, "_drawn", None)
        if drawn is not None:
            own = dict(part.get_submodule(drawn.where).named_parameters())
            drawn.samples = {name: _sample(own[name]) for name in drawn.samples if name in own}


def before_use(part: nn.Module) -> None:
    """See to the weights of a part that is about to be used; costs nothing once they are there.

    Those that a ``Pretrained`` ``init_cfg`` names are loaded, in every process, on the device and
    in the type of the part; what a checkpoint or a hand has brought stays. Without a source a part
    that is being trained starts from random weights, but not if most of them would stay as they
    are. (A trace, as of ``get_flops.py``, counts operations and neither loads nor stops; it warns,
    since what it leaves may be used.)

    Raises:
        RuntimeError: the part was built with ``init_cfg=None``, and no weights have come; or it is
            being exported.
        FileNotFoundError, ValueError: those of ``init_cfg`` do not exist or do not fit.
    """
    drawn: Drawn | None = getattr(part, "_drawn", None)
    if drawn is None:
        return
    if torch.jit.is_tracing():
        _warn_of_a_trace(part)
        return
    if pretrained(part):
        # DDP hands out the random weights of the first process: other values say nothing there
        in_group = get_world_size() > 1
        if in_group or is_random(part):
            drawn.came |= set() if in_group else _set_otherwise(part, drawn)[1]
            _load(part, drawn)
        return
    if drawn.must_train or not is_random(part):  # see check_weights()
        return
    if part.training and torch.is_grad_enabled() and _trains_most(part, drawn):
        _remember(part, None)
        return
    name = type(part).__name__
    if drawn.taken_away and drawn.left_out and not drawn.came:
        raise RuntimeError(
            f"the weights of {name} are random: its init_cfg is None, and checkpoints leave out "
            f"the {drawn.left_out}. Name a source in the config of that, "
            "init_cfg=dict(type='Pretrained', checkpoint=...)"
        )
    if drawn.taken_away or drawn.came:
        reason = _lacking(drawn) or (
            "its init_cfg is None (mmseg's init_model and mmdet's init_detector set that), and no "
            "checkpoint has brought others"
        )
        raise RuntimeError(
            f"the weights of {name} are random: {reason}. Give a checkpoint of the whole model, or "
            "name a source and load it: MODELS.build(cfg.model) of the config as it is, then "
            "model.init_weights()"
        )
    _remember(part, None)  # say it once
    warnings.warn(
        f"{name} uses random weights: nothing was loaded, and it has no "
        "init_cfg=dict(type='Pretrained', checkpoint=...)",
        stacklevel=2,
    )


def check_weights(model: nn.Module) -> None:
    """Stop a model that is asked to predict while a part that must be trained is random.

    A ``Pretrained`` ``init_cfg`` of the part, or of a module around it, is loaded first.

    Raises:
        RuntimeError: naming the parts.
        FileNotFoundError, ValueError: as ``init_weights()``.
    """
    if getattr(model, "_weights_are_there", False):
        return
    _load_sources(model)
    found = _untrained(model)
    if found:
        raise RuntimeError(
            f"no weights for {', '.join(found)} of {type(model).__name__}: these must have been "
            "trained, and what they hold is random; give a checkpoint of a training"
        )
    model._weights_are_there = True  # type: ignore[assignment]


def training_begins(model: nn.Module) -> None:
    """Say that the parts of a model that must be trained are being trained."""
    if torch.is_grad_enabled() and not getattr(model, "_weights_are_there", False):
        for part in model.modules():
            if getattr(getattr(part, "_drawn", None), "must_train", False):
                _remember(part, None)
        model._weights_are_there = True  # type: ignore[assignment]


def pretrained(module: nn.Module) -> list[Mapping[str, Any]]:
    """The ``Pretrained`` ones among the ``init_cfg`` of a module."""
    configs = getattr(module, "init_cfg", None) or []
    listed = [configs] if isinstance(configs, Mapping) else configs
    return [config for config in listed if config["type"] in ("Pretrained", PretrainedInit)]


def _untrained(model: nn.Module) -> list[str]:
    """What of a model must be trained and was not, as ``decode_head (CATSegHead)``."""
    found = []
    for name, part in model.named_modules():
        drawn: Drawn | None = getattr(part, "_drawn", None)
        if drawn is not None and drawn.must_train and is_random(part):
            lacking = _lacking(drawn)
            found.append(f"{name} ({type(part).__name__}{lacking and f'; {lacking}'})")
    return found


def _load_sources(model: nn.Module) -> None:
    """Load what ``init_cfg`` name, of parts that must be trained and of modules around parts.

    Of the latter only where no weights have come to any part, since all would be loaded.
    """
    for module in list(model.modules()):  # those around others first: they load these, too
        if not isinstance(module, BaseModule) or module.is_init or not pretrained(module):
            continue
        if "_drawn" in module.__dict__:
            if module.__dict__["_drawn"] is not None and module.__dict__["_drawn"].must_train:
                before_use(module)
            continue
        parts = [part for part in module.modules() if "_drawn" in part.__dict__]
        if parts and all(_is_untouched(part) for part in parts):
            module.init_weights()


def _is_untouched(part: nn.Module) -> bool:
    """Whether nothing has come to a part; other values in a group may be those of rank 0."""
    drawn: Drawn | None = part.__dict__["_drawn"]
    if drawn is None or drawn.came:
        return False
    return get_world_size() > 1 or not _set_otherwise(part, drawn)[1]


def _lacking(drawn: Drawn) -> str:
    if not drawn.came:
        return ""
    lacking = sorted(drawn.names - drawn.came)
    return (
        f"the checkpoint has no {lacking[0]} of the right shape, and {len(lacking)} such of "
        f"{len(drawn.names)}"
    )


def _warn_of_a_trace(part: nn.Module) -> None:
    with untraced():
        random = is_random(part)
    if random:
        warnings.warn(
            f"{type(part).__name__} is traced with random weights: enough to count operations; "
            "before an export load weights, model.init_weights() or a checkpoint",
            stacklevel=3,
        )


def _set_otherwise(part: nn.Module, drawn: Drawn) -> tuple[set[str], set[str]]:
    """What no checkpoint brought of the parameters with samples; and those with other values."""
    own = dict(part.get_submodule(drawn.where).named_parameters())
    asked = {name for name in drawn.samples if name in own and name not in drawn.came}
    now = {name: _sample(own[name]) for name in asked}
    same = {name for name in asked if torch.equal(now[name], drawn.samples[name].to(now[name]))}
    return asked, asked - same


def _trains_most(part: nn.Module, drawn: Drawn) -> bool:
    """Whether most of what is random has gradients: a few tuned matrices cannot save the rest."""
    own = dict(part.get_submodule(drawn.where).named_parameters())
    moved = [own[name].requires_grad for name in drawn.samples if name in own.keys() - drawn.came]
    trains = any(parameter.requires_grad for parameter in own.values())
    return trains and 2 * sum(moved) >= len(moved)


def _load(part: Any, drawn: Drawn) -> None:
    own = dict(part.get_submodule(drawn.where).named_parameters())
    device = next(iter(own.values())).device.type
    with ExitStack() as exact:
        exact.enter_context(torch.inference_mode(False))
        exact.enter_context(torch.no_grad())
        for place in {"cpu", device}:  # not in the mixed precision of the pass that asks for them
            exact.enter_context(torch.autocast(place, enabled=False))
        kept = {name: own[name].detach().clone() for name in drawn.came}
        part.is_init = False
        part.init_weights()
        for name, value in kept.items():
            own[name].copy_(value)
    _remember(part, None)
    print_log(
        f"{type(part).__name__}: loaded {pretrained(part)[-1]['checkpoint']!r} at its first use",
        logger="current",
    )


def _note_loaded(
    part: nn.Module, weights: nn.Module, state: Mapping[str, Any], prefix: str, *_: object
) -> None:
    """Before ``weights`` are loaded: which of them are there, in shape."""
    drawn: Drawn | None = getattr(part, "_drawn", None)
    if drawn is None:
        return
    own = dict(weights.named_parameters())
    for name in drawn.names & own.keys():
        given = state.get(prefix + name)
        fits = isinstance(given, Tensor) and given.shape == own[name].shape
        if fits and not hasattr(given, LEFT_OUT):
            drawn.came.add(name)
    if drawn.came >= drawn.names & own.keys():
        _remember(part, None)


def _before_entry(part: nn.Module, *_: object) -> None:
    if part.__dict__.get("_drawn") is None:
        return
    if getattr(torch.compiler, "is_exporting", bool)():  # which sees no values
        raise RuntimeError(
            f"{type(part).__name__} is exported before its weights came: call model.init_weights() "
            "or load a checkpoint, run the model once, then export it"
        )
    before_use(part)


def _remember(part: nn.Module, drawn: Drawn | None) -> None:
    part.__dict__["_drawn"] = drawn


@torch.no_grad()
def _sample(parameter: Tensor) -> Tensor:
    """A few values, from all over the tensor, on the CPU."""
    flat = parameter.detach().reshape(-1)
    step = max(1, len(flat) // _SAMPLES)
    return flat[::step][:_SAMPLES].clone().cpu()
