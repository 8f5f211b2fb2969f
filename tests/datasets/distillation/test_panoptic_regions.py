"""Panoptic annotations become regions as DeCLIP's evaluation has them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from PIL import Image

from mmclipdis.datasets.distillation.panoptic_regions import PanopticRegionsDataset
from mmclipdis.datasets.distillation.region_transforms import (
    CropRegions,
    LetterboxRegions,
    LoadPanopticRegions,
    letterbox_masks,
    open_rgb,
)
from tests.paths import REAL_DATA

SAMPLE = REAL_DATA / "coco_panoptic_sample"
CATEGORIES = [  # not in the order of their ids
    {"id": 200, "name": "wall-brick", "isthing": 0},
    {"id": 3, "name": "car", "isthing": 1},
    {"id": 90, "name": "sky", "isthing": 0},
]
PIPELINE = [
    dict(type="LoadPanopticRegions"),
    dict(type="LetterboxRegions", size=64, patch_size=8),
    dict(type="CropRegions", size=16),
    dict(type="PackRegions"),
]
WIDTH, HEIGHT = 40, 30
SKY, WALL, CAR = 70_000, 300, 7  # ids that need three bytes, two and one


def segment_map() -> np.ndarray:
    ids = np.full((HEIGHT, WIDTH), SKY)
    ids[20:] = WALL
    ids[10:20, 8:20] = CAR
    return ids


def segments() -> list[dict]:
    return [
        {"id": SKY, "category_id": 90, "bbox": [0, 0, 1, 1], "iscrowd": 0},  # box not to be read
        {"id": WALL, "category_id": 200, "bbox": [0, 0, 1, 1], "iscrowd": 0},
        {"id": CAR, "category_id": 3, "bbox": [8, 10, 12, 10], "iscrowd": 1},  # crowds count
    ]


def write(folder: Path, infos: list[dict], *, categories=CATEGORIES, ids=None) -> Path:
    for name in ("images", "png"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    photo = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(photo).save(folder / "images" / "a.jpg")
    ids = segment_map() if ids is None else ids
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
    Image.fromarray(colours).save(folder / "png" / "a.png")
    content = {
        "images": [{"id": 5, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}],
        "annotations": [{"image_id": 5, "file_name": "a.png", "segments_info": infos}],
        "categories": categories,
    }
    (folder / "panoptic.json").write_text(json.dumps(content))
    return folder


def dataset(folder: Path, **kwargs) -> PanopticRegionsDataset:
    defaults = dict(
        ann_file="panoptic.json",
        data_root=str(folder),
        data_prefix=dict(img_path="images", seg_map_path="png"),
        test_mode=True,
        pipeline=PIPELINE,
    )
    return PanopticRegionsDataset(**{**defaults, **kwargs})


def regions(folder: Path, **options) -> dict:
    """What the loading transform makes of the first image."""
    load = LoadPanopticRegions(**options)
    return load.transform(dataset(folder).get_data_info(0))


def test_classes_are_the_categories_by_id(tmp_path: Path) -> None:
    meta = dataset(write(tmp_path, segments())).metainfo
    assert meta["classes"] == ("car", "sky", "wall-brick")
    assert meta["isthing"] == (True, False, False)
    assert meta["thing_classes"] == ("car",)
    assert meta["stuff_classes"] == ("sky", "wall-brick")


def test_boxes_of_things_are_annotated_and_of_stuff_measured(tmp_path: Path) -> None:
    found = regions(write(tmp_path, segments()))
    assert found["labels"].tolist() == [1, 2, 0]
    assert found["isthing"].tolist() == [False, False, True]
    # stuff: first and last row and column, so one pixel less than its extent
    assert found["boxes"].tolist() == [[0, 0, 39, 19], [0, 20, 39, 29], [8, 10, 20, 20]]
    ids = segment_map()
    assert all((m == (ids == i)).all() for m, i in zip(found["masks"], (SKY, WALL, CAR)))


def test_area_and_count_limits(tmp_path: Path) -> None:
    folder = write(tmp_path, segments())
    assert regions(folder, min_area=121)["labels"].tolist() == [1, 2]
    assert regions(folder, min_area=120)["labels"].tolist() == [1, 2, 0]  # the car has 12 x 10
    assert regions(folder, max_area=39 * 9)["labels"].tolist() == [2, 0]
    assert regions(folder, max_regions=2)["labels"].tolist() == [1, 2]


def test_the_defaults_are_those_of_the_protocol(tmp_path: Path) -> None:
    small = [{"id": CAR, "category_id": 3, "bbox": [8, 10, 7, 9]}]  # 63 px
    assert len(regions(write(tmp_path, small))["labels"]) == 0
    small[0]["bbox"] = [8, 10, 8, 8]
    assert len(regions(write(tmp_path, small))["labels"]) == 1
    small[0]["bbox"] = [0, 0, 1024, 1024.5]
    assert len(regions(write(tmp_path, small))["labels"]) == 0
    many = [{"id": CAR, "category_id": 3, "bbox": [8, 10, 8, 8]}] * 103
    assert len(regions(write(tmp_path, many))["labels"]) == 100


def test_a_sample(tmp_path: Path) -> None:
    item = dataset(write(tmp_path, segments()))[0]
    inputs, sample = item["inputs"], item["data_samples"]
    assert inputs["image"].shape == (3, 64, 64) and inputs["image"].dtype == torch.uint8
    assert inputs["image"][:, 48:].sum() == 0 and inputs["image"][:, :48].float().mean() > 50
    assert inputs["crops"].shape == (3, 3, 16, 16) and inputs["crops"].dtype == torch.uint8
    # both axes in units of the longer side
    torch.testing.assert_close(inputs["boxes"][2], torch.tensor([8.0, 10, 20, 20]) / 40)
    assert sample.gt_regions.labels.tolist() == [1, 2, 0]
    masks = sample.gt_regions.masks
    assert masks.shape == (3, 8, 8) and masks.dtype == torch.bool
    assert not masks[:, 6:].any()  # padding
    assert masks[1, 4:6].all() and not masks[1, :4].any()
    assert sample.ori_shape == (30, 40) and sample.img_shape == (48, 64) and sample.img_id == 5


def test_an_image_without_regions_stays(tmp_path: Path) -> None:
    item = dataset(write(tmp_path, []))[0]
    assert item["inputs"]["boxes"].shape == (0, 4)
    assert item["inputs"]["crops"].shape == (0, 3, 16, 16)
    assert item["data_samples"].gt_regions.masks.shape == (0, 8, 8)


@pytest.mark.parametrize(
    ("rows", "columns", "side", "cells"),
    [
        (slice(100, 140), slice(200, 260), 35, 9),
        (slice(100, 140), slice(200, 260), 64, 24),
        (slice(3, 9), slice(5, 11), 35, 1),
        (slice(3, 9), slice(5, 11), 64, 1),
    ],
)
def test_masks_are_scaled_without_antialiasing(rows, columns, side, cells) -> None:
    """DeCLIP spec, golden G12; antialiasing gives 23, 52, 3 and 5 cells."""
    mask = np.zeros((1, 480, 640), dtype=bool)
    mask[0, rows, columns] = True
    assert letterbox_masks(mask, side).sum() == cells


def test_crops_of_things_are_enlarged_and_end_at_the_border(tmp_path: Path) -> None:
    photo = Image.new("RGB", (40, 30))
    photo.paste((255, 0, 0), (5, 8, 23, 22))
    boxes = np.array([[8.0, 10, 20, 20], [8, 10, 20, 20], [0, 0, 20, 20]])
    isthing = np.array([True, False, True])
    crops = CropRegions(size=180).transform(dict(pil=photo, boxes=boxes, isthing=isthing))["crops"]
    red = crops[..., 0] > 128
    # 12 x 10 grows to 18 x 15 (rows 7.5 to 22.5, rounded to 8 and 22): all red, 180 x 140
    assert red[0, 20:160].all() and not red[0, :20].any() and not red[0, 160:].any()
    assert red[1, 15:165].all() and not red[1, :15].any()  # 12 x 10 as it is
    # 20 x 20 at the corner: -5 to 25 becomes 0 to 25, red from 5 and 8 to 23 and 22
    rows, columns = np.flatnonzero(red[2].any(1)), np.flatnonzero(red[2].any(0))
    assert abs(columns[[0, -1]] - np.array([36, 165])).max() <= 1
    assert abs(rows[[0, -1]] - np.array([58, 157])).max() <= 1


def test_size_must_be_whole_patches() -> None:
    with pytest.raises(ValueError, match="size=65 is no multiple of patch_size=8"):
        LetterboxRegions(size=65, patch_size=8)


def test_categories_from_another_file(tmp_path: Path) -> None:
    plain = [{"id": c["id"], "name": c["name"]} for c in CATEGORIES]
    folder = write(tmp_path, segments(), categories=plain)
    with pytest.raises(
        ValueError, match=r"panoptic.json: category .* has no isthing.*categories_f"
    ):
        dataset(folder)
    for content in (CATEGORIES, {"categories": CATEGORIES}):
        (folder / "categories.json").write_text(json.dumps(content))
        meta = dataset(folder, categories_file="categories.json").metainfo
        assert meta["classes"] == ("car", "sky", "wall-brick")


def test_missing_files_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path, segments())
    with pytest.raises(FileNotFoundError, match="no annotation file .*nothing.json'; set ann_file"):
        dataset(folder, ann_file="nothing.json")
    with pytest.raises(FileNotFoundError, match="no folder .*data_prefix.seg_map_path"):
        dataset(folder, data_prefix=dict(img_path="images", seg_map_path="nowhere"))
    with pytest.raises(FileNotFoundError, match="set categories_file"):
        dataset(folder, categories_file="nothing.json")
    (folder / "png" / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match="no panoptic PNG at .*a.png"):
        dataset(folder)[0]


def test_annotations_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path, [{"id": CAR, "category_id": 4, "bbox": [0, 0, 9, 9]}])
    with pytest.raises(ValueError, match="'a.png' .* category_id 4 is none of the 3 categories"):
        dataset(folder)
    folder = write(tmp_path, [{"id": 8, "category_id": 3, "bbox": [0, 0, 9, 9]}])
    with pytest.raises(ValueError, match="segment 8 is not in .*a.png"):
        dataset(folder)[0]
    folder = write(tmp_path, segments(), ids=segment_map()[:, :-1])
    with pytest.raises(ValueError, match=r"a.png has 39 x 30 pixels .* its annotation has 40 x 30"):
        dataset(folder)[0]
    with pytest.raises(ValueError, match="takes its classes from the json"):
        dataset(folder, metainfo=dict(classes=("a",)))
    (folder / "panoptic.json").write_text("[]")
    with pytest.raises(ValueError, match="holds a list instead of images, annotations"):
        dataset(folder)
    (folder / "panoptic.json").write_text("{")
    with pytest.raises(ValueError, match="is no json"):
        dataset(folder)


def test_broken_images_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    with pytest.raises(ValueError, match="cannot read .*x.png as an image"):
        open_rgb(str(tmp_path / "x.png"), "image")
    with pytest.raises(FileNotFoundError, match="no image at .*y.png"):
        open_rgb(str(tmp_path / "y.png"), "image")


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the COCO sample is not here")
@pytest.mark.parametrize("categories_file", [None, "panoptic_coco_categories.json"])
def test_real_coco(categories_file) -> None:
    data = PanopticRegionsDataset(
        "panoptic_examples.json",
        str(SAMPLE),
        dict(img_path="input_images", seg_map_path="panoptic_examples"),
        categories_file,
        test_mode=True,
    )
    meta = data.metainfo
    assert len(meta["classes"]) == 133 and len(meta["thing_classes"]) == 80
    assert meta["classes"][0] == "person" and meta["classes"][132] == "rug-merged"
    assert meta["isthing"] == (True,) * 80 + (False,) * 53
    content = json.loads((SAMPLE / "panoptic_examples.json").read_text())
    everything = LoadPanopticRegions(min_area=0, max_area=float("inf"))
    pipeline = Compose([everything, LetterboxRegions(560, 16), CropRegions(224)])
    for index, note in enumerate(content["annotations"]):
        results = pipeline(data.get_data_info(index))
        areas = [segment["area"] for segment in note["segments_info"]]
        assert results["masks"].sum((1, 2)).tolist() == areas
        assert results["grid_masks"].shape == (len(areas), 35, 35)
        assert results["unit_boxes"].min() >= 0 and results["unit_boxes"].max() <= 1
        assert results["crops"].shape == (len(areas), 224, 224, 3)
