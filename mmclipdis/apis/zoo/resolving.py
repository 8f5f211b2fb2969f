"""From what people type to a config and its weights: names, aliases, files; what is not here."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmclipdis.apis.zoo.listing import (
    DEFAULTS,
    SCOPES,
    TASKS,
    ModelInfo,
    check_task,
    everything,
    find,
    near,
)
from mmclipdis.utils.places import ROOT

if TYPE_CHECKING:  # mmengine takes seconds
    from mmengine.config import Config


@dataclass(frozen=True)
class Resolved:
    """What a name stands for.

    Attributes:
        config: the config, with the weights that it names where they are on this machine.
        checkpoint: weights to load after those that the config names; None: there are none.
        info: the model of the zoo; None for a config of somebody's own.
    """

    config: Config
    checkpoint: str | None
    info: ModelInfo | None


def resolve(
    model: str | Path | None,
    task: str,
    weights: str | Path | None = None,
    cfg_options: Mapping[str, Any] | None = None,
) -> Resolved:
    """The config and the weights that a name or a file stands for; downloads what is missing.

    Args:
        model: a name of the zoo (``"clearclip-vitb16"``), of a metafile
            (``"clearclip_vitb16_voc20"``), a config's file, or its path below ``configs``; None
            for the packaged model of the task.
        task: what the model is asked for: ``"segment"``, ``"detect"`` or ``"tag"``.
        weights: a checkpoint, a file or URL, in place of the zoo's.
        cfg_options: settings that replace those of the config.

    Raises:
        FileNotFoundError: no such config or checkpoint; or weights that neither are here nor can be
            downloaded: it says where to get them and where to put them.
        ValueError: no such name or task; the model is for another task; ``cfg_options`` do not fit.
    """
    name, path, info = look_up(model, task)
    from mmclipdis.apis.zoo.on_disk import find_checkpoint, put_weights

    config = _read(info.path if path is None and info is not None else Path(str(path)), cfg_options)
    if info is None:
        check_config_task(config, task, name)
    named = path is None and not any("init_cfg" in key for key in cfg_options or ())
    checkpoint = find_checkpoint(info, weights, name, needed=named)  # before anything is downloaded
    put_weights(config, info, name)
    return Resolved(config, checkpoint, info)


def look_up(model: str | Path | None, task: str) -> tuple[str, Path | None, ModelInfo | None]:
    """What a model is called, the config's file if it was given, and the model of the zoo, if any.

    Args:
        model, task: As of :func:`resolve`.

    Raises:
        FileNotFoundError, ValueError: no such config, name or task; the model is for another task.
    """
    check_task(task)
    name = DEFAULTS[task] if model is None else str(model)
    path = config_path(name)
    info = find(name, task) if path is None else _of_config(path)
    if path is None and info is None:
        raise ValueError(_unknown(name, task))
    if info is not None and info.task != task:
        raise ValueError(_other_task(name, info, task))
    return name, path, info


def check_config_task(config: Mapping[str, Any], task: str, name: str) -> None:
    """Refuse a config of another task; one that does not say its own passes.

    Args:
        config: of mmengine.
        task: what it is asked for.
        name: of the config, for the message.

    Raises:
        ValueError: naming the task that it is for.
    """
    found = SCOPES.get(str(config.get("default_scope")))
    kind = str((config.get("model") or {}).get("type", "")).rpartition(".")[2]
    if found is None and config.get("default_scope") == "mmengine":
        found = {"DeCLIP": "distil", "RegionClassifier": "regions"}.get(kind, "tag")
    if found is not None and found != task:
        raise ValueError(_task_message(name, found, task))


def merge(config: Config, options: Mapping[str, Any] | None) -> None:
    """Put settings into a config, in place of its own.

    Args:
        config: it is changed.
        options: as ``cfg_options`` of :func:`resolve`.

    Raises:
        ValueError: they are no dict, or do not fit.
    """
    if options is None:
        return
    if not isinstance(options, Mapping):
        raise ValueError(
            f"cfg_options={options!r}: give a dict such as {{'model.test_cfg.mode': 'whole'}}"
        )
    try:
        config.merge_from_dict(dict(options))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = str(error.args[0] if error.args else error).rstrip(".")
        raise ValueError(
            f"cfg_options do not fit the config {str(config.filename)!r}: {reason}"
        ) from error


def read_settings(pairs: Sequence[str]) -> dict[str, Any] | None:
    """``key=value`` pairs as mmengine reads them on the command lines of mm; None for none."""
    if not pairs:
        return None
    from mmclipdis.apis.cfg_options import CfgOptions

    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=CfgOptions)
    found: dict[str, Any] = parser.parse_args(["--cfg-options", *pairs]).cfg_options
    return found


def _read(path: Path, options: Mapping[str, Any] | None) -> Config:
    from mmclipdis.engine.configs import read_config_file

    config = read_config_file(path)
    merge(config, options)
    return config


def config_path(name: str) -> Path | None:
    """The config's file that is meant, from here or from ``configs``; None for a name.

    Raises:
        FileNotFoundError: it is a path, and there is no such file.
    """
    path = Path(name.removeprefix("mmclipdis::")).expanduser()
    if path.suffix not in (".py", ".json", ".yml", ".yaml"):
        return None
    for folder in (Path(), ROOT, ROOT / "configs"):
        if (folder / path).is_file():
            return folder / path
    if path == Path(path.name) and (info := find(path.stem)) is not None:
        return info.path
    close = near(path.stem)
    hint = f"; did you mean the model {' or '.join(map(repr, close[:2]))}?" if close else ""
    raise FileNotFoundError(f"no config at {name}{hint}")


def _of_config(path: Path) -> ModelInfo | None:
    """The zoo's model whose config lies at a path; another with equal content is another."""
    found = path.resolve()
    return next((info for info in everything() if info.path.resolve() == found), None)


def _unknown(name: str, task: str) -> str:
    close = near(name, task)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return (
        f"there is no model {name!r}, and no config of this name; {hint}"
        f"`mmclipdis models --task {task}` lists all"
    )


def _other_task(name: str, info: ModelInfo, task: str) -> str:
    return _task_message(name, info.task, task)


def _task_message(name: str, found: str, task: str) -> str:
    what = {
        "segment": "segments photos",
        "detect": "detects objects",
        "tag": "tags photos",
        "distil": "distils CLIP",
        "regions": "measures regions",
    }
    default = f" or choose another, such as {DEFAULTS[task]!r}" if task in DEFAULTS else ""
    return (
        f"{name!r} {what[found]} and cannot {task}: give it to {TASKS[found]},{default} "
        f"(`mmclipdis models --task {task}` lists all)"
    )
