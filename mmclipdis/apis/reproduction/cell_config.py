"""The config of a cell as a file of its own: options put in, data and weights where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmclipdis.apis.reproduction.places import Places
from mmclipdis.apis.zoo.listing import ModelInfo, find
from mmclipdis.apis.zoo.resolving import merge, read_settings
from mmclipdis.engine.configs import read_config_file

#: In options: the file of the training before.
CHECKPOINT = "{checkpoint}"


def info_of(model: str) -> ModelInfo:
    """The zoo's model of an entry of the metafiles.

    Raises:
        ValueError: there is none.
    """
    info = find(model)
    if info is None:
        raise ValueError(f"no metafile has an entry {model!r}")
    return info


def entry_config(model: str, options: Sequence[str], places: Places) -> Config:
    """The config of an entry with options, its paths as ``places`` says.

    Options with ``{checkpoint}`` are left to :func:`late_options`.
    """
    info = info_of(model)
    config = read_config_file(info.path)
    merge(config, read_settings([one for one in options if CHECKPOINT not in one]))
    return Config(places.put(config.to_dict()), filename=str(info.path))


def late_options(options: Sequence[str], checkpoint: str) -> list[str]:
    """Options that name the checkpoint of a training, for ``--cfg-options``."""
    return [one.replace(CHECKPOINT, checkpoint) for one in options if CHECKPOINT in one]


def measured_by(config: Config, path: Path) -> Config:
    """The config with a hook that writes what is measured, and what it costs, to ``path``."""
    hooks: list[Any] = list(config.get("custom_hooks") or ())
    config.custom_hooks = [*hooks, {"type": "CostHook", "path": str(path)}]
    return config
