"""From what a person names to a model with its weights and its words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmclipdis.apis.inferencers.words import read_words
from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.engine.configs import read_config_file
from mmclipdis.engine.random_weights import before_use, check_weights, is_random, pretrained
from mmclipdis.export.kinds import refuse_kind
from mmclipdis.models.text_encoder import dataset_classes

#: What ``set_vocabulary`` changes of a part that keeps ``ClassText``.
_OF_CLASS_TEXT = ("vocabulary", "_embeddings")
NO_NAMES = "no class names: give words, as --words 'sky, road, [car, van]'"
#: Class in a model's ancestry -> its task; others tag.
_TASKS = {"BaseSegmentor": "segment", "BaseDetector": "detect"}


@dataclass(frozen=True)
class Source:
    """A model with its weights, and what it came from.

    Attributes:
        model: The module, in float32.
        config: Its config, if there is one.
        name: What the file calls it.
        metainfo: ``dataset_meta`` of its checkpoint.
    """

    model: Any
    config: Any
    name: str | None
    metainfo: Mapping[str, Any] = field(default_factory=dict)


def opened(
    config_or_name: Any,
    checkpoint: str | Path | None,
    cfg_options: Mapping[str, Any] | None = None,
    task: str | None = None,
) -> Source:
    """The model that a config, a name or a module stands for, with its weights.

    Raises:
        FileNotFoundError: no such config, checkpoint or weights.
        RuntimeError: weights that are random.
        ValueError: no model in it; half precision; or a checkpoint or options for a model that is
            built.
    """
    from mmclipdis.apis.inferencers.building import built
    from mmclipdis.apis.zoo.listing import ENTRANCES

    if task is not None and task not in ENTRANCES:
        raise ValueError(f"task must be one of {', '.join(ENTRANCES)}, got {task!r}")
    task = task or _task_of(config_or_name)
    found = built(config_or_name, checkpoint, task, cfg_options)
    model = _inner(found.model)
    refuse_kind(type(model))
    if task == "detect":
        model.know_names(found.metainfo, found.config)
    given = config_or_name if isinstance(config_or_name, str) else None
    source = Source(model, found.config, _name_of(found.config) or given, found.metainfo)
    halves = {str(p.dtype) for p in source.model.parameters() if p.dtype != torch.float32}
    if halves:
        raise ValueError(f"the model is in {', '.join(sorted(halves))}: call model.float() first")
    refuse_random(source.model)
    return source


def _inner(model: Any) -> Any:
    """What predicts: InfoCLIP hands everything but its training to the segmentor inside."""
    return getattr(model, "segmentor", model)


def _task_of(config_or_name: Any) -> str:
    """The task of a model, of a config's, or of a name of the zoo.

    Raises:
        FileNotFoundError: there is no such config.
        ValueError: no such name; a model that is not exported; or nothing that could be one.
    """
    from mmclipdis.apis.zoo.resolving import config_path

    if isinstance(config_or_name, nn.Module):
        return _task_of_kind(type(config_or_name))
    if isinstance(config_or_name, Config):
        return _task_of_config(config_or_name)
    if not isinstance(config_or_name, (str, Path)):
        raise ValueError(
            f"a {type(config_or_name).__name__} is no model: give a config, its file, a name of "
            "mmclipdis.models() or a built model"
        )
    path = config_path(str(config_or_name))
    if path is not None:
        return _task_of_config(read_config_file(path))
    return _task_of_name(str(config_or_name))


def _task_of_name(name: str) -> str:
    from mmclipdis.apis.zoo.listing import ENTRANCES, find, near
    from mmclipdis.apis.zoo.resolving import look_up

    known = {task: find(name, task) for task in ENTRANCES}
    tasks = [task for task, info in known.items() if info is not None and info.task == task]
    if not any(known.values()):
        close = " or ".join(map(repr, near(name)))
        hint = f"did you mean {close}? " if close else ""
        raise ValueError(
            f"there is no model {name!r}, and no config of this name; {hint}`mmclipdis models` "
            "lists all"
        )
    if not tasks:
        look_up(name, ENTRANCES[0])  # says what the model is for
    if len(tasks) > 1:
        print(f"note: {name!r} is a name of models to {' and to '.join(tasks)}: took the first")
    return tasks[0]


def _task_of_config(config: Config) -> str:
    if not hasattr(config.get("model"), "get"):
        raise ValueError(f"config {str(config.filename)!r} has no model, a dict of settings")
    kind = config.model.get("type")
    if isinstance(kind, str):
        with (
            DefaultScope.overwrite_default_scope(config.get("default_scope", "mmseg")),
            MODELS.switch_scope_and_registry(None) as registry,  # imports the scope's models
        ):
            kind = registry.get(kind)
    if kind is None:
        return "segment"  # it is named when it is built
    return _task_of_kind(kind)


def _task_of_kind(kind: type) -> str:
    refuse_kind(kind)
    bases = {base.__name__ for base in kind.__mro__}
    return next((task for base, task in _TASKS.items() if base in bases), "tag")


def _name_of(config: Any) -> str | None:
    filename = getattr(config, "filename", None)
    return Path(filename).name if filename else None


def refuse_random(model: nn.Module) -> None:
    """Load what ``init_cfg`` name and is not loaded yet; refuse parts that stay random.

    Raises:
        FileNotFoundError, ValueError: those weights do not exist or do not fit.
        RuntimeError: naming the parts.
    """
    check_weights(model)
    for part in model.modules():
        if getattr(part, "_drawn", None) is not None and pretrained(part):
            before_use(part)
    random = [
        f"{name} ({type(part).__name__})" for name, part in model.named_modules() if is_random(part)
    ]
    if random:
        raise RuntimeError(
            f"the weights of {', '.join(random)} are random: a file of them would be of no use; "
            "give a checkpoint, or name weights in init_cfg (if random ones are meant, "
            "mmclipdis.engine.random_weights.take_as_meant(model))"
        )


@contextmanager
def use_words(source: Source, words: Any) -> Iterator[Vocabulary]:
    """The classes in use inside the block; a model that was given has its own ones again behind it.

    Raises:
        FileNotFoundError, ValueError: words that cannot be read, or none at all.
    """
    model = source.model
    if hasattr(getattr(model, "class_text", None), "asked"):
        with _words_of_detector(model, words) as vocabulary:
            yield vocabulary
        return
    part = _named_part(model)
    attributes = getattr(part, "state_of_names", _OF_CLASS_TEXT)
    kept = {name: getattr(part, name) for name in attributes}
    try:
        # also where others are given: a background_index is about these
        followed = words is None or getattr(part, "background_index", None) is not None
        if part.vocabulary is None and followed and (known := _known_names(source)):
            part.set_vocabulary(known)
        if words is not None:
            part.set_vocabulary(read_words(words))
        elif part.vocabulary is None:
            raise ValueError(NO_NAMES)
        yield part.vocabulary
    finally:
        for name, value in kept.items():
            setattr(part, name, value)


@contextmanager
def _words_of_detector(model: Any, words: Any) -> Iterator[Vocabulary]:
    part = model.class_text
    if words is None:
        if part.vocabulary is None:
            raise ValueError(NO_NAMES)
        yield part.vocabulary
        return
    with part.asked(read_words(words)):
        names = part.vocabulary
        if len(names.queries) > names.num_classes:
            raise ValueError(
                "a detector's file has one name a class: give a class for each synonym, as "
                "'car, van' in place of '[car, van]'"
            )
        yield names


def _named_part(model: Any) -> Any:
    """What keeps the vocabulary: ours say it, else a stock segmentor's head, a tagger's text."""
    for name in ("named_part", "decode_head", "text"):
        part = getattr(model, name, None)
        if hasattr(part, "set_vocabulary"):
            return part
    raise ValueError(
        f"{type(model).__name__} with a {type(model.decode_head).__name__} is not exported: its "
        "classes are fixed; of mmseg's own models those with a CosineSegHead are"
    )


def _known_names(source: Source) -> list[str]:
    """As the inferencers have them; none if neither config nor checkpoint says any.

    Raises:
        ValueError: a data set of the config that is not registered, or has no names.
    """
    found = source.metainfo.get("classes")
    if _task_of_kind(type(source.model)) == "segment":
        from mmclipdis.models.segmentation.named_segmentor import config_metainfo

        found = (config_metainfo(source.config) or {}).get("classes") or found
    if not found:
        dataset = (source.config or {}).get("test_dataloader", {}).get("dataset", {})
        found = (dataset.get("metainfo") or {}).get("classes")
        if not found and isinstance(dataset.get("type"), str):
            found = dataset_classes(dataset["type"])
    return list(found or ())
