"""What is known of a data set before the first iteration: its names, files, labels and boxes.

Everything here goes by what a data set has, not by its class, so that mmseg's and mmdet's own are
checked as ours are.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from mmclipdis.utils.listed_files import (
    missing_message,
    missing_places,
    repeated,
    unread_ending_with,
    unread_pictures,
)

#: What an item of a data list calls its files, what they are, and what to set.
_FILES = (
    ("img_path", "photos", "set data_root and data_prefix, or remove them from the list"),
    ("seg_map_path", "label maps", "set data_prefix.seg_map_path and seg_map_suffix"),
)


def parts_of(dataset: Any) -> Iterator[Any]:
    """The data sets inside wrappers (repeated, joined, mixed), or the data set itself."""
    while "wrapped" in getattr(dataset, "__dict__", ()):  # SeededDataset
        dataset = dataset.wrapped
    inside = [dataset.dataset] if hasattr(dataset, "dataset") else getattr(dataset, "datasets", [])
    if not inside:
        yield dataset
    for part in inside:
        yield from parts_of(part)


def steps_of(transforms: Any) -> Iterator[Any]:
    """All transforms of a pipeline, those inside of others (test-time augmentation) as well."""
    for step in transforms or ():
        yield step
        for inside in ("transforms", "subroutines"):
            yield from steps_of(getattr(step, inside, None))


def mask_folders(model: Any) -> list[Any]:
    """Where the parts of a model that need masks find a file for each photo.

    They have ``needs_masks`` and ``masks``, and that has ``file_of(img_path)``.
    """
    parts = model.modules() if isinstance(model, nn.Module) else ()
    needing = [part for part in parts if getattr(part, "needs_masks", False)]
    sources = [getattr(part, "masks", None) for part in needing]
    return [source for source in sources if hasattr(source, "file_of")]


def check_masks(folder: Any, items: Sequence[Mapping[str, Any]]) -> None:
    """Check that each photo of a data list has a mask file of its own.

    Args:
        folder: Of :func:`mask_folders`.
        items: The data list.

    Raises:
        FileNotFoundError: one has none.
        ValueError: two have the same one.
    """
    owners: dict[Any, Any] = {}
    for item in items:
        photo = item.get("img_path")
        file = folder.file_of(photo)
        other = owners.setdefault(file, photo)
        if other != photo:
            raise ValueError(
                f"mask file {file} would be that of {other} and of {photo}: put the files into "
                "folders of it that are called as those of the photos"
            )


def label_steps(dataset: Any) -> list[Any]:
    """The steps of a data set's pipeline that load label maps."""
    steps = steps_of(getattr(getattr(dataset, "pipeline", None), "transforms", ()))
    return [
        step for step in steps if hasattr(step, "_load_seg_map") and getattr(step, "with_seg", True)
    ]


def check_listed(dataset: Any, items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Check that the photos and label maps of a data list are there.

    Args:
        dataset: With the options of mmengine's, mmseg's or mmdet's data sets.
        items: Its data list.

    Returns:
        Warnings: photos listed twice, pictures and label maps in its folders that are not read.

    Raises:
        FileNotFoundError: Files are missing; counts them, and names the first with its line.
    """
    name, source = type(dataset).__name__, _source(dataset)
    steps = steps_of(getattr(getattr(dataset, "pipeline", None), "transforms", ()))
    if any(getattr(part, "backend_args", None) for part in (dataset, *steps)):
        return []  # the files are not on a disk here
    suffixes = {"img_path": "img_suffix", "seg_map_path": "seg_map_suffix"}
    for key, what, remedy in _FILES:
        if key == "seg_map_path" and not label_steps(dataset):
            continue
        paths = [str(item[key]) for item in items if item.get(key) is not None]
        if any("://" in path for path in paths[:1]):
            return []
        places = missing_places(paths)
        if places:
            raise FileNotFoundError(
                missing_message(
                    name,
                    what,
                    paths,
                    places,
                    source=source,
                    suffix=getattr(dataset, suffixes[key], "") or "",
                    remedy=remedy,
                    columns=getattr(dataset, "list_has_columns", False),
                )
            )
    photos = [str(item["img_path"]) for item in items if item.get("img_path")]
    found = [repeated(photos, source)]
    if not source and hasattr(dataset, "img_suffix"):
        found += _unread(dataset, items)
    return [text for text in found if text]


def _source(dataset: Any) -> str:
    path = getattr(dataset, "ann_file", "") or ""
    return path if os.path.isfile(path) else ""


def _unread(dataset: Any, items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Warnings about pictures and label maps that lie in the folders of a data set unread."""
    prefix = dataset.data_prefix
    read = {str(item.get(key)) for item in items for key in ("img_path", "seg_map_path")}
    photos, maps = prefix.get("img_path") or "", prefix.get("seg_map_path") or ""
    same = os.path.abspath(photos) == os.path.abspath(maps)
    texts = [] if same else [unread_pictures(photos, dataset.img_suffix, read)]
    if maps and not same and os.path.isdir(maps) and label_steps(dataset):
        of_labels = unread_ending_with(maps, dataset.seg_map_suffix, read)
        if of_labels:
            texts.append(f"{of_labels:,} label maps below {maps!r} belong to no photo that is read")
    return texts


def check_boxes(dataset: Any, items: Sequence[Mapping[str, Any]], training: bool) -> str:
    """Check that there are boxes to learn from, or to score, and of which classes.

    Returns:
        A warning about classes without any box, or ``''``.

    Raises:
        ValueError: No image has a box that counts; says what there is instead.
    """
    classes = list((getattr(dataset, "metainfo", None) or {}).get("classes") or ())
    novel = set((getattr(dataset, "metainfo", None) or {}).get("novel_classes") or ())
    counts: Counter[int] = Counter()
    crowds = 0
    for item in items:
        for box in item["instances"]:
            if box.get("ignore_flag"):
                crowds += 1
            elif box["bbox_label"] >= 0:  # those below are pseudo boxes, of no class
                counts[box["bbox_label"]] += 1
    name = f"{type(dataset).__name__}: {getattr(dataset, 'ann_file', '')!r}"
    if training and not counts:
        raise ValueError(
            f"{name}: none of its {len(items):,} images has a box to learn from "
            f"({crowds:,} boxes are crowds; boxes without area, outside of their image or of "
            "other classes do not count); repair the boxes, or set the classes"
        )
    looked_for = [i for i, c in enumerate(classes) if not (training and c in novel)]
    absent = [classes[i] for i in looked_for if not counts[i]]
    if not absent or not classes:
        return ""
    fate = "nothing is learnt of them" if training else "they are in no mean"
    return f"{len(absent):,} of {len(looked_for):,} classes have no box, {fate}: {some(absent)}"


def some(names: Sequence[str], most: int = 8) -> str:
    """The first names."""
    return ", ".join(map(str, names[:most])) + (", ..." if len(names) > most else "")
