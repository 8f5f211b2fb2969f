"""The models that the metafiles list, and finding one by its name."""

from __future__ import annotations

import difflib
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mmclipdis.apis.zoo.sources import LOADER, Weights, weights_of
from mmclipdis.utils.places import PACKAGE, ROOT

#: What people may ask for -> what takes such a model.
TASKS = {
    "segment": "mmclipdis.segment or `mmclipdis segment`",
    "detect": "mmclipdis.detect or `mmclipdis detect`",
    "tag": "mmclipdis.tag or `mmclipdis tag`",
    "distil": "tools/train.py",
    "regions": "tools/test.py",
}
#: Those with an entrance for photos and words.
ENTRANCES = ("segment", "detect", "tag")
#: The packaged models, which need no download.
DEFAULTS = {"segment": "clearclip-shapes", "detect": "fvit-shapes", "tag": "clip-shapes"}
#: mm's scopes -> tasks; that of mmengine has several.
SCOPES = {"mmseg": "segment", "mmdet": "detect"}


@dataclass(frozen=True)
class ModelInfo:
    """A model of the zoo.

    Attributes:
        name: the short one, or that of the metafile where it has none.
        task: ``"segment"``, ``"detect"`` or ``"tag"``; ``"distil"`` and ``"regions"`` for configs
            of tools, which :func:`models` does not list unless asked.
        config: from the root of a clone, or of ``mmclipdis/.mim`` in an installation.
        method: of which paper; the metafile's collection.
        encoder: which CLIP.
        parameters: how many numbers it has, text tower included; None where nobody counted.
        license: of the weights.
        downloads: what has to come to the machine before it can be used, in the order of need.
        checkpoint: trained weights that ship, a file; None: there are none, or none are needed.
        trained: whether a checkpoint is needed.
        aliases: other names that are understood.
        short: whether it has a short name; others are benchmarks of the same models.
        default: whether the task takes it when no model is named.
        converter: the tool for the checkpoint that the authors released, if there is one.
        page: of the documentation.
        results: data set, metrics and source of each number that the metafile quotes for the config
            as it stands; those of a ``Variant`` (an option, other weights) are for its tables.
    """

    name: str
    task: str
    config: str
    method: str
    encoder: str
    parameters: int | None
    license: str
    downloads: tuple[Weights, ...]
    checkpoint: Path | None
    trained: bool
    aliases: tuple[str, ...]
    short: bool
    default: bool
    converter: str | None
    page: str
    results: tuple[str, ...]

    @property
    def offline(self) -> bool:
        """Whether the package holds all that it needs."""
        return not self.downloads

    @property
    def path(self) -> Path:
        """The config's file."""
        return ROOT / self.config


def models(task: str | None = None) -> list[ModelInfo]:
    """The models that take photos and words: those with short names first, packaged ones ahead.

    Args:
        task: ``"segment"``, ``"detect"`` or ``"tag"``; None for all three.

    Raises:
        ValueError: there is no such task.
    """
    if task is not None:
        check_task(task)
    asked = ENTRANCES if task is None else (task,)
    order = {name: place for place, name in enumerate(TASKS)}
    return sorted(
        (info for info in everything() if info.task in asked),
        key=lambda info: (order[info.task], not info.default, not info.short, not info.offline),
    )


def find(name: str, task: str | None = None) -> ModelInfo | None:
    """The model of a name, of a task first; None if there is none.

    Small letters and ``-`` for ``_`` do as well.
    """
    asked, other = _plain(name), None
    # the packaged models stand in one file, and reading all of them takes half a second
    for file in sorted(_files(), key=lambda file: "/shapes/" not in file):
        for info in _models_of(file):
            if asked in map(_plain, (info.name, *info.aliases)):
                if info.task == task:
                    return info
                other = other or info
    return other


def check_task(task: str) -> None:
    """Refuse a task that there is not.

    Raises:
        ValueError: naming those that there are.
    """
    if task not in TASKS:
        raise ValueError(f"there is no task {task!r}; choose one of {', '.join(ENTRANCES)}")


def near(name: str, task: str | None = None) -> list[str]:
    """Up to three names that look like ``name``; of a task first, if one is given."""
    known = {
        _plain(one): one
        for info in everything()
        if task is None or info.task == task
        for one in (*info.aliases, info.name)
    }
    found = difflib.get_close_matches(_plain(name), list(known), n=3, cutoff=0.6)
    return [known[one] for one in found] or ([] if task is None else near(name))


def everything() -> tuple[ModelInfo, ...]:
    """All models of all metafiles."""
    return tuple(info for file in _files() for info in _models_of(file))


def entries() -> dict[str, tuple[str, dict[str, Any]]]:
    """All entries as they stand in the metafiles: name -> the metafile and the entry."""
    return {one["Name"]: (file, one) for file in _files() for one in _read(ROOT / file)["Models"]}


@functools.cache
def _files() -> tuple[str, ...]:
    return tuple(_read(ROOT / "model-index.yml")["Import"])


@functools.cache
def _models_of(file: str) -> tuple[ModelInfo, ...]:
    """The models of one metafile."""
    data = _read(ROOT / file)
    collections = {one["Name"]: one for one in data["Collections"]}
    return tuple(_info(entry, collections) for entry in data["Models"])


def _read(path: Path) -> Any:
    with path.open(encoding="utf-8") as file:
        return yaml.load(file, Loader=LOADER)


def _info(entry: dict[str, Any], collections: dict[str, Any]) -> ModelInfo:
    """A model of a metafile's entry."""
    about = entry["Metadata"]
    collection = collections[entry["In Collection"]]
    task = about.get("Task") or SCOPES[about["Scope"]]
    alias = entry.get("Alias", [])
    short = [alias] if isinstance(alias, str) else list(alias)
    name, *others = [*short, entry["Name"]]
    weights = weights_of(about["Pretrained Weights"])
    trained = not about["Training Data"].startswith("none")
    ships = entry.get("Weights")
    checkpoint = None if ships is None else PACKAGE.parent / ships
    released = _released(entry) if trained and checkpoint is None else ()
    licences = dict.fromkeys(one.license for one in (*weights, *released) if one.license)
    return ModelInfo(
        name=name,
        task=task,
        config=entry["Config"],
        method=entry["In Collection"],
        encoder=about["Encoder"],
        parameters=about.get("Parameters"),
        license="; ".join(licences),
        downloads=(*(one for one in weights if one.kind != "ships"), *released),
        checkpoint=checkpoint,
        trained=trained,
        aliases=tuple(others),
        short=bool(short),
        default=DEFAULTS.get(task) == name,
        converter=collection["Metadata"].get("Converter") if "Released" in about else None,
        page=collection["Metadata"]["Page"],
        results=tuple(_result(one) for one in entry.get("Results", ()) if "Variant" not in one),
    )


def _result(result: dict[str, Any]) -> str:
    """A result of a metafile in words: ``ADE20K: mIoU 16.7 (ClearCLIP paper)``."""
    numbers = ", ".join(f"{name} {value:g}" for name, value in result["Metrics"].items())
    return f"{result['Dataset']}: {numbers} ({result['Source']})"


def _released(entry: dict[str, Any]) -> tuple[Weights, ...]:
    """The checkpoint that must be trained, or that the authors released."""
    page, _, licence = entry["Metadata"].get("Released", "").partition(", ")
    train = f"python tools/train.py {entry['Config']}"
    title = f"{entry['In Collection']}'s released checkpoint" if page else "your own training"
    return (Weights(f"{entry['Name']}.pth", "trained", title, page, licence, where=train),)


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
