"""Settings of a config that are mistyped or out of range: said before anything is built.

mmengine takes what it knows from a config and leaves the rest alone, since a config may have
variables of its own; a setting whose name is mistyped would be such a variable, without a word.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Collection, Iterator, Mapping
from numbers import Real
from typing import Any

from mmengine.config import Config
from mmengine.optim import OPTIMIZERS, DefaultOptimWrapperConstructor
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

#: Settings at the top of a config: those of the runner, and what tools or mmengine read besides.
SETTINGS = {
    *inspect.signature(Runner).parameters,
    *("custom_imports", "env_cfg", "find_unused_parameters", "model_wrapper_cfg", "runner_type"),
    *("tta_model", "tta_pipeline", "vis_backends", "work_dir"),
} - {"cfg"}
#: Variables that configs of the mm libraries have by convention; nothing reads them.
VARIABLES = {"train_pipeline", "val_pipeline", "test_pipeline", "optimizer", "backend_args"}
#: How alike a variable and a setting must be for the one to be taken for the other.
ALIKE = 0.88
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
#: What mmengine itself reads in a loader, besides the arguments of PyTorch's.
OF_LOADERS = {
    "dataset",
    "sampler",
    "batch_sampler",
    "collate_fn",
    "worker_init_fn",
    "num_batch_per_epoch",
}
ENVIRONMENT = ("cudnn_benchmark", "mp_cfg", "dist_cfg", "resource_limit")
PARAMWISE = (
    *("custom_keys", "bias_lr_mult", "bias_decay_mult", "norm_decay_mult", "dwconv_decay_mult"),
    *("flat_decay_mult", "dcn_offset_lr_mult", "bypass_duplicate"),
)


class UserInputError(ValueError):
    """The user asked for something that cannot be done; the message says what to do instead."""


def check_config(config: Config) -> None:
    """Check names and values of what every config has, whatever it builds.

    Raises:
        UserInputError: a variable that looks like a mistyped setting, a setting that its place does
            not know, or a value of the wrong type or range.
    """
    _check_top(config)
    for name in LOADERS:
        if config.get(name):
            _check_loader(name, config[name])
    _known("env_cfg", config.get("env_cfg"), ENVIRONMENT)
    randomness = config.get("randomness")
    _known("randomness", randomness, inspect.signature(Runner.set_randomness).parameters)
    if randomness and randomness.get("seed") is not None:
        _number("randomness.seed", randomness["seed"], whole=True, low=0)
    _check_loop(config.get("train_cfg"))
    _check_optimizer(config.get("optim_wrapper"))
    for name, hook in (config.get("default_hooks") or {}).items():
        if isinstance(hook, Mapping) and "interval" in hook:
            _number(f"default_hooks.{name}.interval", hook["interval"], whole=True, low=-1)


def check_custom_keys(config: Config, model: nn.Module) -> None:
    """Check that each key of ``optim_wrapper.paramwise_cfg.custom_keys`` is in a parameter's name.

    Raises:
        UserInputError: one is in none, and would change nothing.
    """
    paramwise = (config.get("optim_wrapper") or {}).get("paramwise_cfg") or {}
    names = [name for name, _ in model.named_parameters()]
    for key in paramwise.get("custom_keys") or {}:
        if names and not any(key in name for name in names):
            parts = sorted({part for name in names for part in name.split(".")})
            raise UserInputError(
                f"optim_wrapper.paramwise_cfg.custom_keys: {key!r} is in the name of no parameter"
                f"{_hint(key.split('.')[-1], parts, 0.6)}"
            )


def _check_top(config: Config) -> None:
    for name in config:
        if name in SETTINGS | VARIABLES or name.startswith("_"):
            continue
        meant = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=ALIKE)
        if meant:
            raise UserInputError(
                f"config has {name!r}, which nothing reads; did you mean {meant[0]!r}? (A variable "
                "of your own may start with an underscore.)"
            )


def _check_loader(name: str, loader: Any) -> None:
    for part in loader if isinstance(loader, (list, tuple)) else [loader]:
        if not isinstance(part, Mapping):
            raise UserInputError(f"{name} must be a dict of settings, got {part!r}.")
        _known(name, part, {*inspect.signature(DataLoader).parameters, *OF_LOADERS})
        if part.get("batch_sampler") is None or "batch_size" in part:
            _number(f"{name}.batch_size", part.get("batch_size", 1), whole=True, low=1)
        _number(f"{name}.num_workers", part.get("num_workers", 0), whole=True, low=0)
        if part.get("persistent_workers") and not part.get("num_workers"):
            raise UserInputError(
                f"{name}.persistent_workers=True needs num_workers of at least 1; got 0."
            )


def _check_loop(loop: Any) -> None:
    if not isinstance(loop, Mapping):
        return
    for key in ("max_iters", "max_epochs", "val_interval"):
        if loop.get(key) is not None:
            _number(f"train_cfg.{key}", loop[key], whole=True, low=1)


def _check_optimizer(wrapper: Any) -> None:
    if not isinstance(wrapper, Mapping):
        return
    optimizer = wrapper.get("optimizer")
    if isinstance(optimizer, Mapping):
        _check_type("optim_wrapper.optimizer.type", optimizer.get("type"))
        for key in ("lr", "weight_decay"):
            if optimizer.get(key) is not None:
                _number(f"optim_wrapper.optimizer.{key}", optimizer[key], low=0)
    if wrapper.get("accumulative_counts") is not None:
        _number(
            "optim_wrapper.accumulative_counts", wrapper["accumulative_counts"], whole=True, low=1
        )
    clip = wrapper.get("clip_grad")
    if isinstance(clip, Mapping) and clip.get("max_norm") is not None:
        _number("optim_wrapper.clip_grad.max_norm", clip["max_norm"], low=0)
    if wrapper.get("constructor", DefaultOptimWrapperConstructor.__name__) != (
        DefaultOptimWrapperConstructor.__name__
    ):
        return  # another constructor has keys of its own
    paramwise = wrapper.get("paramwise_cfg")
    _known("optim_wrapper.paramwise_cfg", paramwise, PARAMWISE)
    for where, values in _factors(paramwise):
        _number(where, values, low=0)


def _check_type(where: str, kind: Any) -> None:
    """An optimiser's type: mmengine calls what its registry answers, and that may be None."""
    if isinstance(kind, str) and OPTIMIZERS.get(kind) is None:
        names = OPTIMIZERS.module_dict
        raise UserInputError(f"{where}: there is no optimiser {kind!r}{_hint(kind, names, 0.5)}")


def _factors(paramwise: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of the factors of a ``paramwise_cfg``."""
    where = "optim_wrapper.paramwise_cfg"
    for key, value in (paramwise or {}).items():
        if key.endswith("_mult"):
            yield f"{where}.{key}", value
    for name, values in ((paramwise or {}).get("custom_keys") or {}).items():
        if not isinstance(values, Mapping):
            raise UserInputError(
                f"{where}.custom_keys[{name!r}] must be a dict such as dict(lr_mult=0.1), got "
                f"{values!r}."
            )
        for key, value in values.items():
            meant = difflib.get_close_matches(key, ("lr_mult", "decay_mult"), n=1, cutoff=0.75)
            if key in ("lr_mult", "decay_mult"):
                yield f"{where}.custom_keys[{name!r}].{key}", value
            elif meant:  # others are settings of the optimiser's own
                raise UserInputError(
                    f"{where}.custom_keys[{name!r}] has {key!r}; did you mean {meant[0]!r}?"
                )


def _known(where: str, settings: Any, known: Collection[str]) -> None:
    if settings is None:
        return
    if not isinstance(settings, Mapping):
        raise UserInputError(f"{where} must be a dict of settings, got {settings!r}.")
    for name in settings:
        if name not in known and not name.startswith("_"):
            raise UserInputError(f"{where} has no setting {name!r}{_hint(name, known, 0.6)}")


def _hint(name: str, known: Collection[str], cutoff: float) -> str:
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=cutoff)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else "; remove it."


def _number(where: str, value: Any, *, low: float, whole: bool = False) -> None:
    kind = "a whole number" if whole else "a number"
    right = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not right or value < low or (whole and value != int(value)):
        raise UserInputError(f"{where} must be {kind} of at least {low}, got {value!r}.")
