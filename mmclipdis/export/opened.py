"""From what a person names to a model with its weights and its words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmclipdis.engine.configs import read_config_file
from mmclipdis.engine.random_weights import before_use, check_weights, is_random, pretrained
from mmclipdis.export.kinds import refuse_kind
from mmclipdis.models.text_encoder import dataset_classes, typed_names

#: What ``set_vocabulary`` changes of a part that keeps ``ClassText``.
_OF_CLASS_TEXT = ("vocabulary", "_embeddings")


@dataclass(frozen=True)
class Source:
    """A model with its weights, and what it came from.

    Attributes:
        model: The module, in float32.
        config: Its config, if there is one.
        name: What the file calls it.
    """

    model: Any
    config: Any
    name: str | None


def opened(config_or_name: Any, checkpoint: str | Path | None) -> Source:
    """The model that a config, a name or a module stands for, with its weights.

    Raises:
        FileNotFoundError: no such config, checkpoint or weights.
        RuntimeError: weights that are random.
        ValueError: no model in it; half precision; or a checkpoint for a model that is built.
    """
    if isinstance(config_or_name, nn.Module):
        refuse_kind(type(config_or_name))
        if checkpoint is not None:
            raise ValueError(
                "checkpoint goes with a config; the model is built already: load its weights with "
                "mmengine.runner.load_checkpoint(model, file)"
            )
        config = getattr(config_or_name, "cfg", None)
        source = Source(_inner(config_or_name), config, _name_of(config))
    else:
        config, own = _config(config_or_name)
        if not hasattr(config.get("model"), "get"):
            raise ValueError(f"config {str(config.filename)!r} has no model, a dict of settings")
        with DefaultScope.overwrite_default_scope(config.get("default_scope", "mmseg")):
            kind = MODELS.get(str(config.model.get("type")))
        if kind is not None:  # an unknown one is named when it is built
            refuse_kind(kind)
        from mmclipdis.apis.segment import build_model

        model = build_model(config, checkpoint if checkpoint is not None else own)
        given = config_or_name if isinstance(config_or_name, str) else None
        source = Source(_inner(model), config, _name_of(config) or given)
    halves = {str(p.dtype) for p in source.model.parameters() if p.dtype != torch.float32}
    if halves:
        raise ValueError(f"the model is in {', '.join(sorted(halves))}: call model.float() first")
    refuse_random(source.model)
    return source


def _inner(model: Any) -> Any:
    """What predicts: InfoCLIP hands everything but its training to the segmentor inside."""
    return getattr(model, "segmentor", model)


def _config(config_or_name: Any) -> tuple[Config, str | None]:
    if isinstance(config_or_name, Config):
        return config_or_name, None
    if not isinstance(config_or_name, (str, Path)):
        raise ValueError(
            f"a {type(config_or_name).__name__} is no model: give a config, its file, a name of "
            "mmclipdis.models() or a built model"
        )
    if Path(config_or_name).is_file():
        return read_config_file(config_or_name), None
    if isinstance(config_or_name, Path):
        raise FileNotFoundError(f"no config at {config_or_name}")
    from mmclipdis.apis.zoo import resolve

    refusals = []
    for task in ("segment", "tag", "detect"):
        try:
            found = resolve(config_or_name, task)
        except ValueError as error:  # a name of another task, or of none
            refusals.append(error)
        else:
            return found.config, found.checkpoint
    raise refusals[0]


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
def use_words(source: Source, words: Any) -> Iterator[tuple[str, ...]]:
    """The names in use inside the block; a model that was given has its own ones again behind it.

    Raises:
        FileNotFoundError, ValueError: words that cannot be read, or none at all.
    """
    model = source.model
    part = _named_part(model)
    attributes = getattr(part, "state_of_names", _OF_CLASS_TEXT)
    kept = {name: getattr(part, name) for name in attributes}
    try:
        if words is not None:
            part.set_vocabulary(typed_names(words))
        elif part.vocabulary is None:
            part.set_vocabulary(_of_data(source.config))
        yield tuple(part.vocabulary.class_names)
    finally:
        for name, value in kept.items():
            setattr(part, name, value)


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


def _of_data(config: Any) -> list[str]:
    dataset = (config or {}).get("test_dataloader", {}).get("dataset", {})
    found = (dataset.get("metainfo") or {}).get("classes")
    if not found and isinstance(dataset.get("type"), str):
        found = dataset_classes(dataset["type"])
    if not found:
        raise ValueError("no class names: give words, as --words 'sky, road, [car, van]'")
    return list(found)
