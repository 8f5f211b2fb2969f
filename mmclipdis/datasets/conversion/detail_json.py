"""The merged annotations of PASCAL-in-Detail (``trainval_merged.json``), as label maps.

The ``detail`` API, which needs a compiler, is not used; masks are decoded by pycocotools.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

#: Categories of PC-59, by their numbers among the 459 of PASCAL Context; ascending, label 1 first.
# fmt: off
CONTEXT59_IDS = (
    2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113,
    115, 144, 158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326,
    347, 349, 354, 355, 360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458,
)
# fmt: on


@dataclass
class Photo:
    """A photo, and what was annotated in it: (number of the annotation, category, mask)."""

    name: str
    phase: str
    segments: list[tuple[Any, int, Any]] = field(default_factory=list)


def read_photos(path: Path) -> list[Photo]:
    """Photos with their segments, all in the order of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not the merged json, is cut off, or contradicts itself.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no annotations {path}; download trainval_merged.json, or give it")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no json ({error}); download it again") from error
    parts = ("images", "annos_segmentation", "categories")
    lists = content if isinstance(content, Mapping) else {}
    lacking = [part for part in parts if not isinstance(lists.get(part), list)]
    if lacking:
        raise ValueError(
            f"{path} has no list of {' and none of '.join(lacking)}; give trainval_merged.json of "
            "PASCAL-in-Detail"
        )
    try:
        return _join(path, *(content[part] for part in parts))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: an entry is not as it should be ({error!r}); download it again"
        ) from error


def _join(path: Path, images: list[Any], notes: list[Any], categories: list[Any]) -> list[Photo]:
    known = {category.get("category_id", category.get("id")) for category in categories}
    absent = [i for i in CONTEXT59_IDS if i not in known]
    if absent:
        raise ValueError(
            f"{path} lacks {len(absent)} of the 59 categories of PC-59, for example {absent[0]}"
        )
    photos: dict[Any, Photo] = {}
    for image in images:
        photos[image["image_id"]] = Photo(Path(image["file_name"]).stem, image["phase"])
    if len({photo.name for photo in photos.values()}) < len(images):
        raise ValueError(f"{path} lists a photo twice; download it again")
    for number, note in enumerate(notes):
        photo, category, mask = note["image_id"], note["category_id"], note["segmentation"]
        name = note.get("id", number)
        if photo not in photos:
            raise ValueError(
                f"{path}: annotation {name} has image_id {photo}, which is none of its "
                f"{len(images):,} images; download it again"
            )
        photos[photo].segments.append((name, category, mask))
    return list(photos.values())


def decode(mask: Any, height: int, width: int) -> np.ndarray:
    """A mask as bool (height, width).

    Args:
        mask: as COCO writes them: list of polygons ``[x1, y1, x2, y2, ...]``, or runs of pixels,
            ``dict(size=[height, width], counts=...)`` with a list or COCO's compressed text.
        height, width: of the photo.

    Raises:
        ValueError: it is none of these, or of another size.
    """
    size = [height, width]
    if isinstance(mask, Mapping):
        counts = mask.get("counts")
        if list(mask.get("size", ())) != size:
            raise ValueError(f"its mask has size {mask.get('size')}, its photo {size}")
        if isinstance(counts, list):
            if sum(counts) != height * width or min(counts) < 0:
                raise ValueError(f"its runs have {sum(counts)} pixels, its photo {height * width}")
            runs = coco_mask.frPyObjects({"size": size, "counts": counts}, height, width)
        elif isinstance(counts, str):
            runs = {"size": size, "counts": counts.encode()}
        else:
            raise ValueError("its runs are neither a list nor text")
    elif isinstance(mask, list):
        for polygon in mask:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
                raise ValueError("its mask is no list of polygons with three points or more")
        if not mask:
            return np.zeros(size, dtype=bool)
        runs = coco_mask.merge(coco_mask.frPyObjects(mask, height, width))
    else:
        raise ValueError(f"its mask is a {type(mask).__name__}, neither polygons nor runs")
    decoded: np.ndarray = coco_mask.decode(runs).astype(bool)
    return decoded


def paint(segments: Sequence[tuple[Any, int, Any]], height: int, width: int) -> np.ndarray:
    """Labels uint8 (height, width): 0 for none, k for the k-th of :data:`CONTEXT59_IDS`.

    Later segments cover earlier ones; those of other categories leave none.

    Raises:
        ValueError: a mask cannot be decoded; names the annotation.
    """
    number = {category: label for label, category in enumerate(CONTEXT59_IDS, start=1)}
    labels = np.zeros((height, width), dtype=np.uint8)
    for name, category, mask in segments:
        try:
            labels[decode(mask, height, width)] = number.get(category, 0)
        except (ValueError, TypeError) as error:
            raise ValueError(f"annotation {name}: {error}") from error
    return labels
