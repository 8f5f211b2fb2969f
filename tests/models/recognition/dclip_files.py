"""Miniature data in the layouts of VOC 2007, COCO 2014 and mmseg's data sets; tiny towers."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from PIL import Image

from tests.tiny import tiny_arch

#: Height and width of the photos.
SIZES = ((40, 56), (64, 48), (50, 50), (33, 70))
#: COCO's ids: 80 of 1..90.
ABSENT = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_IDS = [number for number in range(1, 91) if number not in ABSENT]


def write_photo(path: Path, size: tuple[int, int], seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_voc2007(root: Path) -> None:
    """Four photos of trainval and of test; in each a dog or cat, and a difficult person."""
    for split in ("trainval", "test"):
        names = [
            f"{number:06d}" for number in (range(1, 5) if split == "trainval" else range(5, 9))
        ]
        listing = root / "ImageSets" / "Main" / f"{split}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("".join(f"{name}\n" for name in names))
        for number, (name, size) in enumerate(zip(names, SIZES, strict=True)):
            write_photo(root / "JPEGImages" / f"{name}.jpg", size, number)
            objects = (("dog", "cat")[number % 2], 0), ("person", 1)
            path = root / "Annotations" / f"{name}.xml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(voc_xml(name, size, objects))


def voc_xml(name: str, size: tuple[int, int], objects: Any) -> str:
    boxes = "".join(
        f"<object><name>{kind}</name><pose>Left</pose><truncated>0</truncated>"
        f"<difficult>{difficult}</difficult><bndbox><xmin>1</xmin><ymin>1</ymin>"
        "<xmax>20</xmax><ymax>20</ymax></bndbox></object>"
        for kind, difficult in objects
    )
    height, width = size
    return (
        f"<annotation><folder>VOC2007</folder><filename>{name}.jpg</filename>"
        f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        f"{boxes}</annotation>"
    )


def write_coco14(root: Path) -> None:
    """Five photos of train2014 and of val2014, the last without annotation; 80 categories."""
    (root / "annotations").mkdir(parents=True)
    categories = [dict(id=number, name=f"class {number}") for number in COCO_IDS]
    for split in ("train2014", "val2014"):
        images, annotations = [], []
        for number, size in enumerate((*SIZES, (48, 48)), start=1):
            name = f"COCO_{split}_{number:012d}.jpg"
            write_photo(root / split / name, size, number)
            images.append(dict(id=number, file_name=name, height=size[0], width=size[1]))
            if number == 5:
                continue
            for category in (1, COCO_IDS[number]):
                box = dict(bbox=[0, 0, 9, 9], area=81, iscrowd=0, segmentation=[])
                key = len(annotations) + 1
                annotations.append(dict(id=key, image_id=number, category_id=category, **box))
        content = dict(images=images, annotations=annotations, categories=categories)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def write_segmentation(root: Path, dataset: Any, kind: type, labels: int) -> None:
    """Two photos and label maps (0..labels - 1, 255) as a data set of mmseg looks for them."""
    defaults = inspect.signature(kind).parameters
    suffix, seg_suffix = (
        dataset.get(key, defaults[key].default if key in defaults else default)
        for key, default in (("img_suffix", ".jpg"), ("seg_map_suffix", ".png"))
    )
    photos, maps = (root / dataset.data_prefix[key] for key in ("img_path", "seg_map_path"))
    maps.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(SIZES[:2]):
        write_photo(photos / f"p{number}{suffix}", size, number)
        drawn = np.random.default_rng(number).integers(0, labels, size, dtype=np.uint8)
        drawn[:5] = 255
        Image.fromarray(drawn).save(maps / f"p{number}{seg_suffix}")
    if dataset.get("ann_file"):
        listing = root / dataset.ann_file
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("p0\np1\n")


def small_arch(name: str) -> dict[str, Any]:
    """An open_clip config of the same kind of tower as ``name``, with CLIP's own tokens."""
    arch = tiny_arch(image_size=64, patch_size=16, layers=6, width=32)
    if name.startswith("RN"):
        arch["vision_cfg"] = dict(image_size=64, layers=[1, 1, 1, 1], width=4)
    arch["text_cfg"] = dict(context_length=20, vocab_size=49408, width=16, heads=2, layers=1)
    return arch


def shrink_encoders(*encoders: Any) -> None:
    """Give configs of towers a small arch of their kind, and random weights."""
    for encoder in encoders:
        arch = small_arch(encoder.pop("arch"))
        encoder.pop("init_cfg")
        encoder.arch = arch
        if encoder.type == "OpenCLIPTextEncoder":
            encoder.update(cache_dir=False, progress=False)


def shrink_loader(config: Config, name: str, root: Path, side: int = 64) -> None:
    """Small images from ``root`` and batches of two, read by the process itself."""
    loader = config[name]
    loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    loader.dataset.data_root = str(root)
    loader.dataset.serialize_data = False  # it collects all garbage, which takes a while
    (resize,) = [step for step in loader.dataset.pipeline if step.type == "Resize"]
    assert (resize.scale, resize.keep_ratio) == ((448, 448), False)
    resize.scale = (side, side)
