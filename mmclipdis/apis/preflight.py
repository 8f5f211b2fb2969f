"""Checks of a config before weights are loaded: what is missing is one line, whoever would trip."""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

from mmclipdis.compat.optional import HAS_MMDET, HAS_MMSEG
from mmclipdis.utils.paths import check_inside


def check_data(config: Config, loaders: Sequence[str]) -> None:
    """Check that the files of the data sets of some loaders are there.

    mmseg's own data sets end in an assertion or, without photos, inside numpy; mmdet's miss a
    folder of photos at the first one, which in validation is after a long training.

    Raises:
        FileNotFoundError: naming the data set, what it lacks, and what to set.
    """
    scope = config.get("default_scope")  # first: mmseg and mmdet share names (CityscapesDataset)
    kinds = sorted(_known_kinds(), key=lambda known: known[0].scope != scope)
    for loader in loaders:
        for dataset in _datasets((config.get(loader) or {}).get("dataset")):
            if "://" in str(dataset) or dataset.get("backend_args"):
                continue
            for registry, base, check in kinds:
                kind = dataset["type"]
                kind = registry.get(kind) if isinstance(kind, str) else kind
                if inspect.isclass(kind) and issubclass(kind, base):
                    check(kind, dataset)
                    break


def _known_kinds() -> Iterator[tuple[Registry, type, Callable[[type, Any], None]]]:
    """Registry, base class and check of the data sets of what is installed."""
    if HAS_MMSEG:
        from mmseg.datasets import BaseSegDataset
        from mmseg.registry import DATASETS as SEGMENTATION

        yield SEGMENTATION, BaseSegDataset, _check_segmentation
    if HAS_MMDET:
        from mmdet.datasets.base_det_dataset import BaseDetDataset
        from mmdet.registry import DATASETS as DETECTION

        yield DETECTION, BaseDetDataset, _check_detection


def _check_segmentation(kind: type, dataset: Any) -> None:
    from mmclipdis.datasets.files import check_files

    root = dataset.get("data_root") or ""
    arguments = inspect.signature(kind).parameters
    default = arguments["img_suffix"].default if "img_suffix" in arguments else ""
    split = os.path.join(root, dataset["ann_file"]) if dataset.get("ann_file") else ""
    folder = os.path.join(root, dataset.get("data_prefix", {}).get("img_path") or "")
    check_files(kind.__name__, folder, split, dataset.get("img_suffix", default))
    if os.path.isfile(split):
        with open(split, encoding="utf-8", errors="replace") as file:
            names = [os.path.join(folder, line.strip()) for line in file]
        check_inside(names, [root, folder], f"{kind.__name__}: {split!r}")


def _check_detection(kind: type, dataset: Any) -> None:
    for name, folder in (dataset.get("data_prefix") or {}).items():
        path = os.path.join(dataset.get("data_root") or "", folder or "")
        if path and not os.path.isdir(path):
            raise FileNotFoundError(
                f"{kind.__name__}: no image folder {path!r}; set data_root, or data_prefix.{name} "
                "below it"
            )
    _check_listed(kind, dataset)


def _check_listed(kind: type, dataset: Any) -> None:
    """Refuse a COCO json whose photos lie outside the data set, before mmdet reads it.

    Only a file in which something looks like it is parsed here: COCO's takes seconds.
    """
    root = dataset.get("data_root") or ""
    path = os.path.join(root, dataset.get("ann_file") or "")
    if not path.endswith(".json") or not os.path.isfile(path):
        return
    with open(path, "rb") as file:
        content = file.read()
    plain = b".." not in content and b"\\u002" not in content
    if plain and not re.search(rb'"file_name"\s*:\s*"(/|\\|[A-Za-z]:)', content):
        return
    try:
        images = json.loads(content)["images"]
        names = [str(image["file_name"]) for image in images if "file_name" in image]
    except (ValueError, LookupError, TypeError):
        return  # whoever reads it says what is wrong
    folder = os.path.join(root, (dataset.get("data_prefix") or {}).get("img") or "")
    paths = (os.path.join(folder, name) for name in names)
    check_inside(paths, [root, folder], f"{kind.__name__}: {path!r}")


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
