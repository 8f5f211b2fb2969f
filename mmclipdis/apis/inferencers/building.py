"""From what a person calls a model to a model with its weights, of the right task."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.checkpoint import _load_checkpoint, _load_checkpoint_to_model
from torch import nn

from mmclipdis.apis.plain_values import check_plain_values
from mmclipdis.apis.zoo.resolving import merge, resolve
from mmclipdis.compat.environment import IncompatibleEnvironmentError
from mmclipdis.compat.optional import HAS_MMDET, HAS_MMSEG, MMDET_REMEDY, MMSEG_REMEDY
from mmclipdis.engine.checkpoint_io import is_remote
from mmclipdis.engine.foreign_checkpoint_guard import check_checkpoint, check_trained

#: Class in a model's ancestry -> its task.
_TASK_OF = {
    "BaseSegmentor": "segment",
    "BaseDetector": "detect",
    "DCLIP": "tag",
    "ZeroShotRecognizer": "tag",
}
#: Task -> what a model of it does, and who uses it.
_DOES = {
    "segment": ("segments photos", "OpenVocabSegInferencer or mmclipdis.segment"),
    "detect": ("detects things", "OpenVocabDetInferencer or mmclipdis.detect"),
    "tag": ("tags photos", "OpenVocabTagger or mmclipdis.tag"),
}


@dataclass(frozen=True)
class Built:
    """A model with its weights, and what it came from."""

    model: Any
    config: Config | None
    #: ``dataset_meta`` of the checkpoint; empty without one.
    metainfo: Mapping[str, Any]


def read_model(
    model: Any, weights: str | Path | None, task: str, options: Mapping[str, Any] | None
) -> tuple[Config, Any]:
    """The config that ``model`` names, with ``options`` in it, and its checkpoint, if one is known.

    Args:
        model: A config file, a config, a name of the zoo, or None for the task's own tiny model.
        weights: A checkpoint in place of the one that belongs to the name.
        task: ``'segment'``, ``'detect'`` or ``'tag'``.
        options: Settings that replace those of the config; a config object stays as it is.

    Raises:
        FileNotFoundError, ValueError: there is no such config or name, it has no model, or options
            that do not fit.
    """
    if not isinstance(model, (Config, str, Path, type(None))):
        raise ValueError(
            f"model is a {type(model).__name__}: give a config file, a mmengine Config "
            "(Config(your_dict)), a name of mmclipdis.models() or a built model"
        )
    if isinstance(model, Config):
        config, checkpoint = model, weights
        if options:
            config = copy.deepcopy(config)
            merge(config, options)
    else:
        found = resolve(model, task, weights, options)
        config, checkpoint = found.config, found.checkpoint
    if not isinstance(config.get("model"), Mapping):
        raise ValueError(f"config {str(config.filename)!r} has no model, a dict of settings")
    check_plain_values(config.model, "model")
    return config, checkpoint


def build_model(config: Config, checkpoint: str | Path | None = None) -> Any:
    """Build the config's model with its weights: CLIP's from ``init_cfg``, then the checkpoint's.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: it does not fit the model, or there is none and a head must be trained.
    """
    return _build(config, checkpoint)[0]


def built(model: Any, weights: Any, task: str, options: Mapping[str, Any] | None) -> Built:
    """A model of ``task`` with its weights; see :func:`read_model` and :func:`build_model`.

    Raises:
        FileNotFoundError, ValueError: as these; a model of another task; or ``weights`` or
            ``options`` for a model that is built already.
    """
    if isinstance(model, nn.Module):
        if weights is not None or options:
            raise ValueError(
                "checkpoint and cfg_options go with a config; the model is built already: "
                "load its weights with mmengine.runner.load_checkpoint(model, file)"
            )
        check_task(type(model), task, "the model")
        return Built(model, getattr(model, "cfg", None), {})
    config, checkpoint = read_model(model, weights, task, options)
    where = f"config {Path(config.filename).name!r}" if config.filename else "the config"
    _check_installed(config, where)
    kind = config.model.get("type")
    if isinstance(kind, str):
        with (
            DefaultScope.overwrite_default_scope(config.get("default_scope", "mmseg")),
            MODELS.switch_scope_and_registry(None) as registry,
        ):
            found = registry.get(kind)
    else:
        found = kind
    if found is not None:  # an unknown one is named when it is built
        check_task(found, task, where)
    module, metainfo = _build(config, checkpoint)
    return Built(module, config, metainfo)


def check_task(kind: Any, task: str, where: str) -> None:
    """Refuse a model that is known to be of another task, or of none of the three.

    Raises:
        ValueError: naming the model, its task and who takes it.
    """
    name = getattr(kind, "__name__", str(kind))
    found = next((_TASK_OF[b.__name__] for b in kind.__mro__ if b.__name__ in _TASK_OF), None)
    if found == task:
        return
    if found is not None:
        does, user = _DOES[found]
        raise ValueError(
            f"{where} is of another task: its {name} {does}, and here a model is asked for that "
            f"{_DOES[task][0]}; use {user}"
        )
    if kind.__module__.startswith("mmclipdis."):
        raise ValueError(
            f"{where} is of another task: its {name} neither segments, detects nor tags photos; "
            "mmclipdis.models() lists those that do"
        )


def _check_installed(config: Config, where: str) -> None:
    scope = config.get("default_scope")
    for name, there, remedy in (
        ("mmseg", HAS_MMSEG, MMSEG_REMEDY),
        ("mmdet", HAS_MMDET, MMDET_REMEDY),
    ):
        if scope == name and not there:
            raise IncompatibleEnvironmentError(f"{where} {remedy}.")


def _build(config: Config, checkpoint: str | Path | None) -> tuple[Any, Mapping[str, Any]]:
    """The model, and the ``dataset_meta`` of its checkpoint."""
    scope = config.get("default_scope", "mmseg")
    with DefaultScope.overwrite_default_scope(scope), _warnings_alone():
        model: Any = MODELS.build(config.model)
        if checkpoint is None:
            check_trained(model)
        model.init_weights()
        metainfo: Mapping[str, Any] = {}
        if checkpoint is not None:
            if not is_remote(checkpoint) and not Path(checkpoint).is_file():
                raise FileNotFoundError(f"no checkpoint at {checkpoint}")
            content = _load_checkpoint(str(checkpoint), map_location="cpu", logger="current")
            if not isinstance(content, dict):
                raise ValueError(
                    f"{checkpoint} holds a {type(content).__name__} and no weights by name; give "
                    "a checkpoint of this config"
                )
            check_checkpoint(model, content)  # before mmengine lists all that does not fit
            _load_checkpoint_to_model(model, content, logger="current")
            meta = content.get("meta") or {}
            metainfo = (meta.get("dataset_meta") or {}) if isinstance(meta, Mapping) else {}
    return model, metainfo


@contextmanager
def _warnings_alone() -> Iterator[None]:
    """Have mmengine's logger, which tells of each file that it loads, print warnings only."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(level)
