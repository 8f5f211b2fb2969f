"""Data as people have them, made of ShapeScenes, and the templates of configs/own_data on them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from PIL import Image

from mmclipdis.shapes.coco import LABEL_SUFFIX
from mmclipdis.shapes.world import CLASSES
from tests.paths import ROOT

TEMPLATES = ROOT / "configs/own_data"
#: Of the classes of ShapeScenes those that the maps and lists of these people have.
GROUNDS = ("grass", "sand", "water", "gravel", "snow", "wood")
THINGS = ("apple", "banana", "starfish", "wheel", "fish", "umbrella", "kite")
#: What these people's maps have where nobody looked.
UNLABELLED = 11


def template(name: str, model_of: str, target: Path, **options: Any) -> Path:
    """A template with another model, that of a config of ShapeScenes, and other options."""
    config = Config.fromfile(TEMPLATES / f"{name}.py")
    config.model = Config.fromfile(ROOT / f"configs/shapes/{model_of}.py").model
    loaders = [key for key in ("train_dataloader", "val_dataloader", "test_dataloader")
               if config.get(key)]  # fmt: skip
    config.merge_from_dict(
        {
            **{f"{loader}.num_workers": 0 for loader in loaders},
            **{f"{loader}.dataset.data_root": str(target.parent) for loader in loaders},
            "default_hooks.logger.interval": 1,
            **options,
        }
    )
    config.dump(target)
    return target


def write_maps(shapes: Path, folder: Path) -> Path:
    """Photos ``.jpg`` and maps with a palette: 0 to 5, and 11 where nobody looked."""
    table = np.full(256, UNLABELLED, np.uint8)
    for label, name in enumerate(GROUNDS):
        table[CLASSES.index(name)] = label
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True)
        for photo in sorted((shapes / "images" / split).glob("*.png")):
            picture = Image.open(photo).convert("RGB")
            ending = (".jpg", ".JPG", ".png")[int(photo.stem) % 3]
            picture.save(folder / f"images/{split}/IMG {photo.stem}{ending}")
            labels = Image.open(shapes / f"annotations/{split}/{photo.stem}{LABEL_SUFFIX}")
            own = Image.fromarray(table[np.asarray(labels)]).convert("P")
            own.putpalette(list(range(256)) * 3)
            own.save(folder / f"labels/{split}/IMG {photo.stem}.png")
    return folder


def write_boxes(shapes: Path, folder: Path) -> Path:
    """COCO's json as Roboflow writes it: a root category 0, ids from 0, no ``iscrowd``."""
    (folder / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (folder / split).symlink_to(shapes / "images" / split)
        content = json.loads((shapes / f"annotations/instances_{split}.json").read_text())
        names = {category["id"]: category["name"] for category in content["categories"]}
        ids = {name: place for place, name in enumerate(THINGS, start=1)}
        notes = [note for note in content["annotations"] if names[note["category_id"]] in ids]
        own = [
            {
                "id": number,
                "image_id": note["image_id"],
                "category_id": ids[names[note["category_id"]]],
                "bbox": note["bbox"],
                "segmentation": [],
            }
            for number, note in enumerate(notes)
        ]
        categories = [{"id": 0, "name": "my-things", "supercategory": "none"}]
        categories += [
            {"id": i, "name": name, "supercategory": "my-things"} for name, i in ids.items()
        ]
        text = json.dumps(
            {"images": content["images"], "categories": categories, "annotations": own}
        )
        (folder / f"annotations/{split}.json").write_text(text)
    return folder


def write_lists(shapes: Path, folder: Path) -> Path:
    """A list of photos and names to train on, a table with 0 and 1 to test on."""
    folder.mkdir(parents=True)
    (folder / "images").symlink_to(shapes / "images")
    for split in ("train", "val"):
        content = json.loads((shapes / f"annotations/panoptic_{split}.json").read_text())
        names = {category["id"]: category["name"] for category in content["categories"]}
        rows = []
        for note in content["annotations"]:
            shown = {names[segment["category_id"]] for segment in note["segments_info"]}
            photo = f"{split}/{Path(note['file_name']).stem}.png"
            if split == "train":
                rows.append([photo, *sorted(shown & set(GROUNDS))])
            else:
                rows.append([photo, *(int(name in shown) for name in GROUNDS)])
        with open(folder / f"{split}.csv", "w", newline="", encoding="utf-8-sig") as file:
            writer = csv.writer(file)
            if split == "val":
                writer.writerow(["filename", *GROUNDS])
            writer.writerows(rows)
    return folder


def write_photos(shapes: Path, folder: Path) -> Path:
    """A folder of photos, some deeper, one that is none."""
    for number, photo in enumerate(sorted((shapes / "images/train").glob("*.png"))):
        place = folder / ("holiday 2019" if number % 2 else "")
        place.mkdir(parents=True, exist_ok=True)
        Image.open(photo).convert("RGB").save(place / f"{number}.JPG", format="JPEG")
    (folder / "notes.txt").write_text("not a photo")
    return folder
