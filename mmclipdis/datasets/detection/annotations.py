"""Annotation files of open-vocabulary detection: read, checked, reduced, written whole."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmclipdis.utils.coco_json import PARTS
from mmclipdis.utils.whole_files import refuse_existing, write_bytes

Annotations = dict[str, Any]


def reduce_annotations(
    content: Mapping[str, Any], keep: Collection[int], listed: Collection[int], drop_images: bool
) -> Annotations:
    """Leave annotations out; ids and order stay, and so do all other parts of the file.

    Args:
        content: of a COCO or LVIS json.
        keep: ids of the categories whose annotations stay, those of crowds included.
        listed: ids of the categories that stay in the list of categories.
        drop_images: leave out images without any annotation that stays.
    """
    keep, listed = set(keep), set(listed)
    notes = [
        note
        for note in tqdm(content["annotations"], unit="annotation", desc="select", disable=None)
        if note["category_id"] in keep
    ]
    images = content["images"]
    if drop_images:
        used = {note["image_id"] for note in notes}
        images = [image for image in images if image["id"] in used]
    categories = [item for item in content["categories"] if item["id"] in listed]
    return {**content, "images": images, "annotations": notes, "categories": categories}


def ids_of(content: Mapping[str, Any], names: Sequence[str], source: str | Path) -> list[int]:
    """Ids of the categories with these names.

    Raises:
        ValueError: a name is not in the file.
    """
    by_name = {category["name"]: category["id"] for category in content["categories"]}
    lacking = [name for name in names if name not in by_name]
    if lacking:
        raise ValueError(
            f"{source} has no category {', '.join(map(repr, lacking))}; give COCO's official "
            "instances_*.json with its 80 categories"
        )
    return [by_name[name] for name in names]


def write_annotations(
    path: str | Path, content: Mapping[str, Any], *, overwrite: bool = False, dry_run: bool = False
) -> bool:
    """Write a json, whole or not at all; returns False if the file held just that already.

    Args:
        path: to write; its folder is made.
        content: of the file.
        overwrite: replace a file with other content.
        dry_run: find out what would be done, and do not do it.

    Raises:
        FileExistsError: the file holds something else, and ``overwrite`` is not set.
    """
    path = Path(path)
    text = json.dumps(content).encode()
    if path.exists():
        if path.read_bytes() == text:
            return False
        refuse_existing(path, overwrite)
    if dry_run:
        return True
    write_bytes(path, text, overwrite)
    return True


def counts(content: Mapping[str, Any]) -> dict[str, int]:
    """Number of images, annotations and categories."""
    return {part: len(content[part]) for part in PARTS}


def compare_counts(
    found: Mapping[str, int], published: Mapping[str, int], official: bool
) -> tuple[str, str]:
    """One line with the counts beside the published ones, and a warning or ``''``.

    The warning is for official input only: a piece of the data set has other counts.
    """
    beside = {part: f" (published {number:,})" for part, number in published.items()}
    line = ", ".join(f"{found[part]:,} {part}{beside.get(part, '')}" for part in PARTS)
    wrong = [part for part in published if found[part] != published[part]]
    if not (official and wrong):
        return line, ""
    return line, (
        f"warning: the input has as many images as the official file, but {' and '.join(wrong)} "
        "differ from the published numbers; is it another release of the annotations?"
    )
