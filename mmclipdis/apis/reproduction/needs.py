"""What the cells of a table need: what is there, what is missing, and the line that gets it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from mmclipdis.apis.preflight import check_data, datasets_of
from mmclipdis.apis.reproduction.cell_config import entry_config, info_of, late_options
from mmclipdis.apis.reproduction.cells import Cell
from mmclipdis.apis.reproduction.places import Places
from mmclipdis.apis.zoo.on_disk import find_checkpoint, look_for_weights
from mmclipdis.apis.zoo.resolving import merge, read_settings


@dataclass(frozen=True)
class Needs:
    """What a cell needs.

    Attributes:
        missing: a line for each thing that is not there, with what gets it; a cell that lacks
            anything cannot be run.
        downloads: what is downloaded before the run.
        checkpoint: of the model that is trained or was released, where it is there; None: there is
            none, or none is needed.
        trains: whether the cell's training has to be run, since its checkpoint is not there.
    """

    missing: tuple[str, ...]
    downloads: tuple[str, ...] = ()
    checkpoint: str | None = None
    trains: bool = False


class Look:
    """Looks for what cells need; data that several have in common is looked at once.

    Args:
        places: Where data and weights lie.
        deep: Read lists and annotations, too, as ``tools/test.py`` does before it starts. Otherwise
            only files and folders are looked for.
    """

    def __init__(self, places: Places, deep: bool = True) -> None:
        self.places = places
        self.deep = deep
        self._data: dict[str, tuple[str, ...]] = {}
        self._cells: dict[tuple[Any, ...], Needs] = {}
        self._tests: dict[str, tuple[str, ...]] = {}

    def needs(self, cell: Cell) -> Needs:
        """What a cell needs, and what of it is missing."""
        key = (cell.model, cell.options, cell.training, cell.checkpoint)
        if key not in self._cells:
            self._cells[key] = self._looked(cell)
        return self._cells[key]

    def data(self, cell: Cell) -> tuple[str, ...]:
        """What of the data of a cell's test is missing."""
        if cell.model not in self._tests:
            config = entry_config(cell.model, (), self.places)
            self._tests[cell.model] = tuple(self._data_of(config, cell.model, _TEST))
        return self._tests[cell.model]

    def _looked(self, cell: Cell) -> Needs:
        missing: list[str] = []
        downloads: list[str] = []
        checkpoint, trains = None, False
        if cell.training is not None:
            checkpoint = self._checkpoint(cell.training.model, missing, needed=False)
            trains = checkpoint is None
            if trains:
                config = entry_config(cell.training.model, cell.training.options, self.places)
                missing += self._data_of(config, cell.training.model, _TRAIN)
                missing += self._weights_of(config, cell.training.model, downloads)
        elif info_of(cell.model).trained:
            checkpoint = self._checkpoint(cell.model, missing, needed=True)
        config = entry_config(cell.model, cell.options, self.places)
        missing += self._data_of(config, cell.model, _TEST)
        if checkpoint is None and not cell.checkpoint:  # a checkpoint holds all weights of a model
            merge(config, read_settings(late_options(cell.options, _TRAINED)))
            missing += self._weights_of(config, cell.model, downloads)
        once = dict.fromkeys
        return Needs(tuple(once(missing)), tuple(once(downloads)), checkpoint, trains)

    def _checkpoint(self, model: str, missing: list[str], needed: bool) -> str | None:
        try:
            return find_checkpoint(info_of(model), None, model, needed, self.places.weights)
        except FileNotFoundError as error:
            missing.append(str(error))
            return None

    def _data_of(self, config: Config, model: str, loaders: Sequence[str]) -> list[str]:
        if not config.get(loaders[0]):
            return [f"{model} has no {loaders[0]}: it cannot be run as it is"]
        return [line for loader in loaders for line in self._loader(config, loader)]

    def _weights_of(self, config: Config, model: str, downloads: list[str]) -> list[str]:
        """Weights to be got by hand; adds to ``downloads``."""
        info = info_of(model)
        absent, fetched = look_for_weights(config, info, model, self.places.weights)
        downloads += fetched
        return [line for line in absent if _TRAINED not in line]

    def _loader(self, config: Config, loader: str) -> tuple[str, ...]:
        evaluator = config.get(loader.replace("_dataloader", "_evaluator"))
        dataset = (config.get(loader) or {}).get("dataset")
        key = repr((_without_pipeline(dataset), evaluator))
        if key not in self._data:
            found = tuple(dict.fromkeys(self._absent(dataset, evaluator)))
            if not found and self.deep:
                found = tuple(_problem(config, loader))
            self._data[key] = found
        return self._data[key]

    def _absent(self, dataset: Any, evaluator: Any) -> Iterator[str]:
        lacking: dict[str, list[str]] = {}
        for path in (*_paths(dataset), *_files_of(evaluator)):
            if "://" not in path and not os.path.exists(path):
                lacking.setdefault(self.places.source(path), []).append(path)
        for source, paths in lacking.items():
            yield f"{', '.join(dict.fromkeys(paths))}: {source}"


#: What is looked at before a training and before a test.
_TRAIN = ("train_dataloader", "val_dataloader")
_TEST = ("test_dataloader",)
#: Stands for the checkpoint of a training that was not run yet.
_TRAINED = "checkpoint-of-the-training.pth"


def _problem(config: Config, loader: str) -> Iterator[str]:
    try:
        check_data(config, (loader,))
    except (FileNotFoundError, ValueError) as error:
        yield " ".join(str(error).split())


def _paths(dataset: Any) -> Iterator[str]:
    """Folders and lists that data sets read."""
    for one in datasets_of(dataset):
        root = one.get("data_root") or ""
        prefixes = one.get("data_prefix") or {}
        folders = prefixes.values() if isinstance(prefixes, Mapping) else [prefixes]
        named = [name for name in (*folders, one.get("ann_file")) if name]
        for name in named or [""] * bool(root):  # VOC's multi-label data name their root alone
            yield os.path.normpath(os.path.join(root, name))


def _files_of(evaluator: Any) -> Iterator[str]:
    for one in evaluator if isinstance(evaluator, (list, tuple)) else [evaluator or {}]:
        path = one.get("ann_file")
        if isinstance(path, str) and path.endswith(".json"):
            yield path


def _without_pipeline(node: Any) -> Any:
    if isinstance(node, Mapping):
        kept = {key: value for key, value in node.items() if key != "pipeline"}
        return {key: _without_pipeline(value) for key, value in kept.items()}
    return [_without_pipeline(one) for one in node] if isinstance(node, (list, tuple)) else node
