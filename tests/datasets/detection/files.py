"""Miniature COCO and LVIS annotations for the tests of open-vocabulary detection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmclipdis.datasets.detection.classes import COCO_CLASSES

# COCO's own ids have gaps; ten apart is enough to tell an id from a position.
COCO_ID = {name: 10 * position + 1 for position, name in enumerate(COCO_CLASSES)}


def coco(
    boxes: Sequence[tuple[str, int]],
    names: Sequence[str] = COCO_CLASSES,
    crowd: Sequence[str] = ("car",),
    size: tuple[int, int] = (100, 80),
) -> dict[str, Any]:
    """A COCO json with a 20 x 20 box for each (name, image id)."""
    images = sorted({image for _, image in boxes})
    return {
        "info": {"year": 2017},
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": size[0], "height": size[1]} for i in images
        ],
        "annotations": [
            {
                "id": 500 + number,
                "image_id": image,
                "category_id": COCO_ID[name],
                "bbox": [10.0, 10.0, 20.0, 20.0],
                "area": 400.0,
                "iscrowd": int(name in crowd),
                "segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]],
            }
            for number, (name, image) in enumerate(boxes)
        ],
        "categories": [{"id": COCO_ID[name], "name": name} for name in names],
    }


#: Golden 11 of the data: what it keeps is known.
GOLDEN = (("person", 1), ("person", 1), ("dog", 1), ("dog", 2), ("traffic light", 3), ("car", 4))


def lvis() -> dict[str, Any]:
    """Golden 13: a frequent, a common and a rare category, with one annotation each."""
    content = coco([("person", 1), ("dog", 2), ("car", 3)], ("person", "dog", "car"), crowd=())
    for number, (category, frequency) in enumerate(zip(content["categories"], "fcr"), start=1):
        category.update(id=number, frequency=frequency)
        content["annotations"][number - 1]["category_id"] = number
        image = content["images"][number - 1]
        del image["file_name"]
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{number:012d}.jpg"
        image.update(neg_category_ids=[1], not_exhaustive_category_ids=[])
    return content


def save(path: Path, content: Any) -> Path:
    """Write a json below folders that need not be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path
