"""Checks of a config before weights are loaded: what is missing is one line, whoever would trip."""

from __future__ import annotations

import codecs
import inspect
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import Registry

from mmclipdis.apis.test_options import type_name
from mmclipdis.compat.optional import HAS_MMDET, HAS_MMSEG
from mmclipdis.utils.coco_boxes import check_coco
from mmclipdis.utils.coco_json import read_coco
from mmclipdis.utils.listed_files import stock_split_problem
from mmclipdis.utils.names import check_metainfo
from mmclipdis.utils.paths import check_inside


def check_data(config: Config, loaders: Sequence[str]) -> None:
    """Check the data sets of some loaders, and the annotations of their evaluators.

    mmseg's own data sets end in an assertion or, without photos, inside numpy; mmdet's miss a
    folder of photos at the first one, which in validation is after a long training. All else is
    seen on the data sets when they are built, by ``DataCheckHook``.

    Raises:
        FileNotFoundError: naming the data set, what it lacks, and what to set.
        ValueError: names of classes that are no list, a split file or a json that the data set
            would read wrongly.
    """
    scope = config.get("default_scope")  # first: mmseg and mmdet share names (CityscapesDataset)
    kinds = sorted(_known_kinds(), key=lambda known: known[0].scope != scope)
    for loader in loaders:
        datasets = list(datasets_of((config.get(loader) or {}).get("dataset")))
        for dataset in datasets:
            _check_names(dataset)
            if "://" in str(dataset) or dataset.get("backend_args"):
                continue
            for registry, base, check in kinds:
                kind = dataset["type"]
                kind = registry.get(kind) if isinstance(kind, str) else kind
                if inspect.isclass(kind) and issubclass(kind, base):
                    check(kind, dataset)
                    break
        evaluators = config.get(loader.replace("_dataloader", "_evaluator")) or ()
        for evaluator in [evaluators] if isinstance(evaluators, dict) else evaluators:
            _check_evaluator(evaluator, [_photos_of(dataset) for dataset in datasets])


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
    from mmclipdis.datasets.files import FilesThere, check_files

    root = dataset.get("data_root") or ""
    arguments = inspect.signature(kind).parameters
    default = arguments["img_suffix"].default if "img_suffix" in arguments else ""
    split = os.path.join(root, dataset["ann_file"]) if dataset.get("ann_file") else ""
    folder = os.path.join(root, dataset.get("data_prefix", {}).get("img_path") or "")
    check_files(kind.__name__, folder, split, dataset.get("img_suffix", default))
    if os.path.isfile(split):
        if not issubclass(kind, FilesThere) and (problem := stock_split_problem(split)):
            raise ValueError(f"{kind.__name__}: {problem}")
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
    from mmdet.datasets import CocoDataset, CocoPanopticDataset

    ours = getattr(kind, "labels_by_name", False)  # those check their json as they read it
    if issubclass(kind, CocoDataset) and not ours and not issubclass(kind, CocoPanopticDataset):
        _check_stock_json(kind, dataset)


def _check_stock_json(kind: type, dataset: Any) -> None:
    """Check a json that mmdet's own reader takes without looking."""
    name = kind.__name__
    if not dataset.get("ann_file"):
        return
    root, folder = dataset.get("data_root") or "", _photos_of(dataset)
    path = os.path.join(root, dataset["ann_file"])
    content = read_coco(path, "set data_root and ann_file")
    names = [str(image.get("file_name", "")) for image in content["images"]]
    check_inside((os.path.join(folder, n) for n in names), [root, folder], f"{name}: {path!r}")
    found = check_coco(content, path, folder)
    del found.filled["iscrowd=0"]  # mmdet knows that one
    if found.filled:
        raise ValueError(
            f"{name}: {path} lacks what mmdet reads: {found.filled_line()}; add it, or take "
            "OVCocoDataset, which computes it"
        )
    classes = (dataset.get("metainfo") or {}).get("classes") or kind.METAINFO["classes"]  # type: ignore[attr-defined]
    _check_left(name, path, content, set(classes), dataset)
    if found.dropped:
        print_log(
            f"{name} {path}: boxes that do not count: {found.dropped_line()}",
            logger="current",
            level=logging.WARNING,
        )


def _photos_of(dataset: Any) -> str:
    """The folder of the photos of a detection data set's config."""
    prefix = (dataset.get("data_prefix") or {}).get("img") or ""
    return os.path.join(dataset.get("data_root") or "", prefix)


def _check_left(name: str, path: str, content: Any, classes: set[str], dataset: Any) -> None:
    """Check that mmdet's filter leaves an image; without one it ends inside numpy."""
    options = dataset.get("filter_cfg") or {}
    if dataset.get("test_mode"):
        options = {}
    known = {item["id"] for item in content["categories"] if item["name"] in classes}
    used = {note["image_id"] for note in content["annotations"] if note["category_id"] in known}
    images, least = content["images"], options.get("min_size", 0)
    empty = (options.get("filter_empty_gt") and [i for i in images if i["id"] not in used]) or []
    small = [image for image in images if min(image["width"], image["height"]) < least]
    left = len(images) - len({image["id"] for image in [*empty, *small]})
    why = (
        f"{len(empty):,} have no box of the classes in use, {len(small):,} have a side below "
        f"{least} px (filter_cfg)"
    )
    if not left:
        raise ValueError(f"{name}: {path!r} has {len(images):,} images, none is left: {why}")
    if left < len(images):
        print_log(f"{name} {path}: {left:,} of {len(images):,} images are used: {why}", "current")


def _check_names(dataset: Any) -> None:
    """Check the names in ``metainfo``; a text may also name a file of names."""
    metainfo = dataset.get("metainfo") or {}
    named = {
        key: value
        for key, value in metainfo.items()
        if not (isinstance(value, str) and os.path.isfile(value))
    }
    check_metainfo(named, type_name(dataset) or "the data set")


def _check_evaluator(evaluator: Any, folders: Sequence[str]) -> None:
    """Check the json that a metric reads by itself; ``folders`` of photos tell missing sizes."""
    path = evaluator.get("ann_file") if isinstance(evaluator, dict) else None
    if isinstance(path, str) and path.endswith(".json") and "://" not in path:
        name = f"ann_file of {type_name(evaluator)}"
        try:
            content = read_coco(path, "set the evaluator's ann_file")
            found = check_coco(content, path, folders[0] if folders else None)
            if "annotation ids" in found.filled:  # pycocotools counts by them
                raise ValueError(f"{path}: the annotations have no id; number them")
            with open(path, "rb") as file:
                if file.read(3) == codecs.BOM_UTF8:
                    raise ValueError(f"{path} begins with a byte order mark; save it without")
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from error


def datasets_of(config: Any) -> Iterator[Any]:
    """A data set's config; of a wrapper those of the data sets inside."""
    if isinstance(config, (list, tuple)):
        for part in config:
            yield from datasets_of(part)
    elif isinstance(config, dict):
        inside = [config[key] for key in ("dataset", "datasets") if key in config]
        if inside:
            yield from datasets_of(inside)
        elif "type" in config:
            yield config
