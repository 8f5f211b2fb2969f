"""Writes ShapeScenes to disk in COCO layout.

::

    OUT/shapes.json                              settings; shapes.json.part until all is written
    OUT/images/{split}/000000000007.png
    OUT/annotations/instances_{split}.json       RLE masks, boxes (x, y, w, h), areas in pixels
    OUT/annotations/captions_{split}.json
    OUT/annotations/panoptic_{split}.json, panoptic_{split}/000000000007.png: id=R+256G+65536B
    OUT/annotations/{split}/000000000007_labelTrainIds.png   stuff-thing map, contiguous classes
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from mmclipdis.shapes.captions import full_caption
from mmclipdis.shapes.scene import Scene, draw_scene, random_size
from mmclipdis.shapes.world import CLASSES, GROUPS, PALETTE, STUFF, THINGS, category_id
from mmclipdis.utils.processes import each
from mmclipdis.utils.whole_files import write_bytes, write_text

LABEL_SUFFIX = "_labelTrainIds.png"
SPLITS: tuple[str, ...] = ("train", "val")
CAPTIONS_PER_IMAGE = 5
VERSION = 1  # of the pictures: raise it when the same seed draws something else


@dataclass(frozen=True)
class Settings:
    """What a data set on disk is a function of."""

    train: int = 600
    val: int = 150
    seed: int = 0
    version: int = VERSION
    objects: tuple[int, int] | None = None  # least and most of a picture; None: 1 to 5, few more

    def as_json(self) -> str:
        """What the marker of a data set says; of ``objects`` nothing where nothing was asked."""
        return json.dumps({k: v for k, v in asdict(self).items() if v is not None})


def draw(
    split: str, index: int, seed: int, objects: tuple[int, int] | None = None
) -> tuple[Scene, list[str]]:
    """Scene and captions of image ``index`` of a split; independent of how many others there are.

    Every caption names exactly what is visible.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    scene = draw_scene(rng, random_size(rng), objects=objects)
    captions = [full_caption(rng, scene.things, scene.grounds) for _ in range(CAPTIONS_PER_IMAGE)]
    return scene, captions


#: What the data set is made of, beside its marker.
_FOLDERS = ("images", "annotations")


def write_dataset(
    out: Path, settings: Settings, *, overwrite: bool = False, workers: int = 1
) -> bool:
    """Writes both splits below ``out``; returns False if they were complete already.

    They are drawn aside and take their places when all are there, so that a data set which is to be
    replaced is kept until then. What an interrupted run left is removed.

    Raises ValueError for counts that are not positive, and FileExistsError when ``out`` holds
    something else and ``overwrite`` is not set, or when it is set and folders in the way are not of
    a writer of this data set.
    """
    for split in SPLITS:
        if getattr(settings, split) < 1:
            raise ValueError(f"{split} must be at least 1 image, got {getattr(settings, split)}")
    if settings.seed < 0 or workers < 1:
        raise ValueError(f"seed must be >= 0 and workers >= 1, got {settings.seed}, {workers}")
    if settings.objects is not None and not 1 <= settings.objects[0] <= settings.objects[1]:
        raise ValueError(
            f"objects are the least and the most of a picture, 1 <= least <= most, "
            f"got {settings.objects}"
        )
    marker, aside, old = out / "shapes.json", out / ".shapes.part", out / ".shapes.old"
    wanted = settings.as_json()
    if marker.exists() and json.loads(marker.read_text()) == json.loads(wanted) and not overwrite:
        return False
    others = {path.name for path in out.iterdir()} - {aside.name} if out.exists() else set()
    if others and not overwrite:
        raise FileExistsError(
            f"{out} is not empty and does not hold this data set complete "
            f"({wanted}); name another folder or pass --overwrite"
        )
    foreign = others & set(_FOLDERS)
    if foreign and not marker.exists():
        raise FileExistsError(
            f"{out} holds {' and '.join(sorted(foreign))}, which are not known to be ShapeScenes "
            f"(there is no {marker.name}), and are left as they are; name another folder"
        )
    for leftover in (aside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    for split in SPLITS:
        _write_split(aside, split, settings, workers)
    marker.unlink(missing_ok=True)
    old.mkdir()
    for name in _FOLDERS:
        if (out / name).exists():
            (out / name).rename(old / name)
        (aside / name).rename(out / name)
    write_text(marker, wanted)
    shutil.rmtree(aside)
    shutil.rmtree(old)
    return True


def _write_split(out: Path, split: str, settings: Settings, workers: int) -> None:
    count, seed = getattr(settings, split), settings.seed
    notes = out / "annotations"
    for folder in (out / "images" / split, notes / split, notes / f"panoptic_{split}"):
        folder.mkdir(parents=True, exist_ok=True)
    job = partial(_write_image, out=out, split=split, seed=seed, objects=settings.objects)
    records = list(each(job, range(count), workers, title=f"draw {split}", spawn=True))
    images = [record["image"] for record in records]
    annotations = [item for record in records for item in record["annotations"]]
    sentences = [
        {"image_id": record["image"]["id"], "caption": caption}
        for record in records
        for caption in record["captions"]
    ]
    for items in (annotations, sentences):
        for number, item in enumerate(items, start=1):
            item["id"] = number
    info = {"description": "ShapeScenes", "version": str(VERSION), "seed": seed}
    parts = {
        "instances": {"annotations": annotations, "categories": categories()[: len(THINGS)]},
        "captions": {"annotations": sentences},
        "panoptic": {
            "annotations": [record["panoptic"] for record in records],
            "categories": categories(),
        },
    }
    for name, content in parts.items():
        document = {"info": info, "images": images, **content}
        write_text(notes / f"{name}_{split}.json", json.dumps(document))


def categories() -> list[dict[str, Any]]:
    """COCO categories of the world, things first, with the drawing colour and the split."""
    return [
        {
            "id": category_id(index),
            "name": name,
            "supercategory": "object" if name in THINGS else "ground",
            "isthing": int(name in THINGS),
            "color": list(PALETTE[index]),
            "split": "novel" if name in GROUPS["novel"] else "base",
        }
        for index, name in enumerate(CLASSES)
    ]


def _write_image(
    index: int, out: Path, split: str, seed: int, objects: tuple[int, int] | None
) -> dict[str, Any]:
    scene, captions = draw(split, index, seed, objects)
    stem, number = f"{index:012d}", index
    notes = out / "annotations"
    _save(out / "images" / split / f"{stem}.png", scene.image[..., ::-1])
    _save(notes / split / f"{stem}{LABEL_SUFFIX}", scene.labels)
    segments, ids = _segments(scene)
    # OpenCV stores blue first: the low byte of an id must become red.
    bytes_of = np.stack([ids >> 16, ids >> 8 & 255, ids & 255], axis=-1).astype(np.uint8)
    _save(notes / f"panoptic_{split}" / f"{stem}.png", bytes_of)
    height, width = scene.labels.shape
    return {
        "image": {"id": number, "file_name": f"{stem}.png", "height": height, "width": width},
        "annotations": [_instance(scene, i, number) for i in range(len(scene.objects))],
        "captions": captions,
        "panoptic": {
            "image_id": number,
            "file_name": f"{stem}.png",
            "segments_info": segments,
        },
    }


def _instance(scene: Scene, position: int, image_id: int) -> dict[str, Any]:
    """COCO annotation of one object: the RLE of its visible part."""
    code = rle.encode(np.asfortranarray(scene.instances == position + 1).astype(np.uint8))
    return {
        "image_id": image_id,
        "category_id": category_id(scene.objects[position]),
        "segmentation": {"size": code["size"], "counts": code["counts"].decode("ascii")},
        "bbox": [float(x) for x in rle.toBbox(code)],
        "area": float(rle.area(code)),
        "iscrowd": 0,
    }


def _segments(scene: Scene) -> tuple[list[dict[str, Any]], NDArray[np.uint32]]:
    """Panoptic segments and their id map: one a ground, one an object."""
    # Ids a multiple of 1000 apart use all three bytes, as COCO's do.
    ids = np.zeros(scene.labels.shape, np.uint32)
    segments = []
    regions = [
        (CLASSES.index(name), (scene.instances == 0) & (scene.labels == CLASSES.index(name)))
        for name in STUFF
    ]
    regions += [(index, scene.instances == i + 1) for i, index in enumerate(scene.objects)]
    for position, (index, mask) in enumerate(regions):
        if not mask.any():
            continue
        identity = category_id(index) * 10_000 + position
        ids[mask] = identity
        rows, cols = np.nonzero(mask)
        top, left = int(rows.min()), int(cols.min())
        segments.append(
            {
                "id": identity,
                "category_id": category_id(index),
                "area": int(mask.sum()),
                "bbox": [left, top, int(cols.max()) + 1 - left, int(rows.max()) + 1 - top],
                "iscrowd": 0,
            }
        )
    return segments, ids


def _save(path: Path, array: NDArray[np.uint8]) -> None:
    encoded, data = cv2.imencode(".png", array)
    if not encoded:
        raise OSError(f"could not write {path}")
    write_bytes(path, data.tobytes())
