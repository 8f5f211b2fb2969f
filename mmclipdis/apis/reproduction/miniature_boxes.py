"""Annotations of boxes, masks, segments and classes in the layouts of COCO, LVIS and PASCAL VOC."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmclipdis.apis.reproduction.miniature_photos import (
    COUNT,
    dealt,
    random_box,
    regions,
    scene,
    write_photo,
)
from mmclipdis.datasets.detection.classes import COCO_CLASSES
from mmclipdis.utils.whole_files import make_folder, write_picture, write_text

#: Of COCO's ids 1 to 90 those without a category.
_NO_CATEGORY = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_IDS = tuple(number for number in range(1, 91) if number not in _NO_CATEGORY)
#: Classes with boxes, of a vocabulary of hundreds.
_MOST = 60
#: Stuff of COCO's panoptic annotations, ids 92 to 200 with gaps in them.
_STUFF = 53
_URL = "http://images.cocodataset.org/"

VOC_XML = (
    "<annotation><filename>{name}.jpg</filename><size><width>{width}</width><height>{height}"
    "</height><depth>3</depth></size>{objects}</annotation>\n"
)
VOC_OBJECT = (
    "<object><name>{}</name><truncated>0</truncated><difficult>{}</difficult><bndbox>"
    "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


def coco_categories(names: Sequence[str]) -> list[dict[str, Any]]:
    """Categories of these names: COCO's own have COCO's ids, others count from 1."""
    own = dict(zip(COCO_CLASSES, COCO_IDS, strict=True))
    known = all(name in own for name in names)
    return [
        dict(id=own[name] if known else number, name=name)
        for number, name in enumerate(names, start=1)
    ]


def write_coco(
    path: Path,
    photos: Path,
    categories: Sequence[Mapping[str, Any]],
    seed: int,
    *,
    name: str = "{:012d}.jpg",
    withheld: Sequence[str] = (),
    lvis: bool = False,
) -> None:
    """Write photos and a json of boxes and masks; each class has a box, of many classes some.

    Args:
        path: The json.
        photos: Folder of the photos.
        categories: What the json lists.
        seed: Of pictures and boxes.
        name: Of a photo, by its id.
        withheld: Classes without a box (novel ones in training).
        lvis: Name photos by ``coco_url``, and say which classes of a photo are complete.
    """
    shown = [category for category in categories if category["name"] not in withheld]
    step = max(1, len(shown) // _MOST)
    ids = [category["id"] for category in shown[::step]]
    images: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    for number in range(COUNT):
        file = name.format(number + 1)
        size = write_photo(photos / file, number, seed)
        image: dict[str, Any] = dict(id=number + 1, height=size[0], width=size[1])
        if lvis:
            image["coco_url"] = f"{_URL}{file}"
            image.update(neg_category_ids=[ids[0]], not_exhaustive_category_ids=[])
        else:
            image["file_name"] = file
        images.append(image)
        rng = np.random.default_rng([seed, number, len(ids)])
        for category in dealt(ids, number, COUNT):
            note = _note(random_box(rng, size))
            notes.append(dict(note, id=len(notes) + 1, image_id=number + 1, category_id=category))
    content = dict(images=images, annotations=notes, categories=list(categories))
    _write_json(path, content)


def write_pseudo_boxes(path: Path, seed: int) -> None:
    """Boxes of things that nobody named, as OV-DQUO's authors give them away: two a photo."""
    records = []
    for number in range(COUNT):
        rng = np.random.default_rng([seed, number, 2])
        size = scene(number, seed).labels.shape
        for _ in range(2):
            box = random_box(rng, (size[0], size[1]))
            known = dict(image_id=number + 1, bbox=box, category_id=-1, pseudo=1)
            records.append(dict(known, weight=round(float(rng.uniform(0.2, 1)), 3)))
    _write_json(path, records)


def write_panoptic(path: Path, photos: Path, maps: Path, seed: int) -> None:
    """Write photos, PNGs whose colours are ids (R + 256 G + 65536 B), and the json of segments."""
    things: list[dict[str, Any]] = [
        dict(id=c["id"], name=c["name"], isthing=1) for c in coco_categories(COCO_CLASSES)
    ]
    stuff: list[dict[str, Any]] = [
        dict(id=92 + i, name=f"stuff {i}", isthing=0) for i in range(_STUFF)
    ]
    images, notes = [], []
    for number in range(COUNT):
        stem = f"{number + 1:012d}"
        height, width = write_photo(photos / f"{stem}.jpg", number, seed)
        images.append(dict(id=number + 1, file_name=f"{stem}.jpg", height=height, width=width))
        places, isthing = regions(number, seed)
        rng = np.random.default_rng([seed, number])
        segments = []
        for region, thing in enumerate(isthing):
            known_ids = np.array([int(c["id"]) for c in (things if thing else stuff)])
            category = int(rng.choice(known_ids))
            rows, columns = np.nonzero(places == region)
            top, left = int(rows.min()), int(columns.min())
            box = [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top]
            known = dict(id=1000 * region + 1, category_id=category, bbox=box, iscrowd=0)
            segments.append(dict(known, area=len(rows)))
        ids = 1000 * places + 1
        make_folder(maps)
        picture = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
        write_picture(maps / f"{stem}.png", Image.fromarray(picture))
        notes.append(dict(image_id=number + 1, file_name=f"{stem}.png", segments_info=segments))
    _write_json(path, dict(images=images, annotations=notes, categories=things + stuff))


def write_voc(root: Path, split: str, classes: Sequence[str], seed: int) -> None:
    """Photos, XML files and a list below ``VOC2007``; each class is in one photo and not hard."""
    names = [f"{number + 1:06d}" for number in range(COUNT)]
    for number, name in enumerate(names):
        size = write_photo(root / "JPEGImages" / f"{name}.jpg", number, seed)
        rng = np.random.default_rng([seed, number])
        shown = [(kind, 0) for kind in dealt(classes, number, COUNT)]
        objects = []
        for kind, difficult in (*shown, (classes[number - 1], 1)):
            left, top, width, height = random_box(rng, size)
            corners = (left + 1, top + 1, left + width, top + height)
            objects.append(VOC_OBJECT.format(kind, difficult, *corners))
        text = VOC_XML.format(name=name, height=size[0], width=size[1], objects="".join(objects))
        make_folder(root / "Annotations")
        write_text(root / "Annotations" / f"{name}.xml", text)
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    make_folder(path.parent)
    write_text(path, "".join(f"{name}\n" for name in names))


def _note(box: Sequence[int]) -> dict[str, Any]:
    """What an annotation says of its box; the mask is the whole of it."""
    left, top, width, height = box
    right, bottom = left + width, top + height
    outline = [left, top, right, top, right, bottom, left, bottom]
    return dict(
        bbox=list(map(float, box)),
        area=float(width * height),
        iscrowd=0,
        segmentation=[list(map(float, outline))],
    )


def _write_json(path: Path, content: Any) -> None:
    make_folder(path.parent)
    write_text(path, json.dumps(content))
