"""Checks of a config before weights are loaded: what is missing is one line, whoever would trip."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config
from mmseg.registry import DATASETS

from mmclipdis.datasets.files import BaseSegDataset, check_files


def check_data(config: Config, loaders: Sequence[str]) -> None:
    """Check that the files of the segmentation data sets of some loaders are there.

    mmseg's own data sets end in an assertion or, without photos, inside numpy.

    Raises:
        FileNotFoundError: naming the data set, what it lacks, and what to set.
    """
    for loader in loaders:
        for dataset in _datasets((config.get(loader) or {}).get("dataset")):
            kind = dataset["type"]
            kind = DATASETS.get(kind) if isinstance(kind, str) else kind
            local = "://" not in str(dataset) and not dataset.get("backend_args")
            if inspect.isclass(kind) and issubclass(kind, BaseSegDataset) and local:
                _check_segmentation(kind, dataset)


def _check_segmentation(kind: type, dataset: Any) -> None:
    root = dataset.get("data_root") or ""
    arguments = inspect.signature(kind).parameters
    default = arguments["img_suffix"].default if "img_suffix" in arguments else ""
    split = dataset.get("ann_file")
    check_files(
        kind.__name__,
        os.path.join(root, dataset.get("data_prefix", {}).get("img_path") or ""),
        os.path.join(root, split) if split else "",
        dataset.get("img_suffix", default),
    )


def _datasets(config: Any) -> Iterator[Any]:
    """A data set's config; of a wrapper those of the data sets inside."""
    if isinstance(config, (list, tuple)):
        for part in config:
            yield from _datasets(part)
    elif isinstance(config, dict):
        inside = [config[key] for key in ("dataset", "datasets") if key in config]
        if inside:
            yield from _datasets(inside)
        elif "type" in config:
            yield config
