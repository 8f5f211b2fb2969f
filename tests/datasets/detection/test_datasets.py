"""OV-COCO and OV-LVIS in mmdet: labels by name, whatever the json lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmdet.registry import DATASETS

import mmclipdis  # noqa: F401  (registers)
from mmclipdis.datasets import OVCocoDataset, OVLVISDataset
from mmclipdis.datasets.detection.classes import (
    BASE_CLASSES,
    COCO_CLASSES,
    NOVEL_CLASSES,
    OV_CLASSES,
)
from tests.datasets.detection.files import GOLDEN, coco, lvis, save
from tests.paths import REAL_DATA

LVIS_100 = REAL_DATA / "lvis_val_100/lvis_val_100.json"
BASE_BOXES = [("dog", 1), ("car", 1), ("toothbrush", 2), ("person", 3)]


def build(path: Path, **settings: Any) -> OVCocoDataset:
    config = {"type": "OVCocoDataset", "ann_file": str(path), "data_prefix": {"img": ""}}
    config.update(pipeline=[], **settings)
    return DATASETS.build(config)


def labels(dataset: OVCocoDataset) -> dict[int, list[int]]:
    items = (dataset.get_data_info(i) for i in range(len(dataset)))
    return {item["img_id"]: [box["bbox_label"] for box in item["instances"]] for item in items}


@pytest.mark.parametrize("names", [OV_CLASSES, COCO_CLASSES, COCO_CLASSES[::-1]])
def test_golden_labels_whatever_the_json_lists(tmp_path: Path, names) -> None:
    path = save(tmp_path / "a.json", coco(BASE_BOXES, names))
    assert labels(build(path, novel_in_training=True)) == {1: [12, 2], 2: [64], 3: [0]}


def test_48_categories_do_not_shift_the_labels(tmp_path: Path) -> None:
    path = save(tmp_path / "a.json", coco([b for b in BASE_BOXES if b[0] != "dog"], BASE_CLASSES))
    dataset = build(path)
    assert labels(dataset) == {1: [2], 2: [64], 3: [0]}
    assert len(dataset.metainfo["classes"]) == 65


def test_metainfo(tmp_path: Path) -> None:
    dataset = build(save(tmp_path / "a.json", coco(GOLDEN)))
    assert dataset.metainfo["classes"] == OV_CLASSES
    assert dataset.metainfo["base_classes"] == BASE_CLASSES
    assert dataset.metainfo["novel_classes"] == NOVEL_CLASSES


def test_the_official_training_file_gives_the_images_of_the_derived_one(tmp_path: Path) -> None:
    path = save(tmp_path / "a.json", coco(GOLDEN))
    assert labels(build(path)) == {1: [0, 0], 4: [2]}
    assert labels(build(path, test_mode=True)) == {1: [0, 0, 12], 2: [12], 3: [], 4: [2]}
    # A box of a crowd is there, and ignored.
    assert build(path).get_data_info(1)["instances"][0]["ignore_flag"] == 1


def test_pictures_below_32_px_are_left_out_of_training(tmp_path: Path) -> None:
    content = coco([("car", 1), ("car", 2), ("car", 3)], crowd=())
    content["images"][0]["height"] = 31
    content["images"][1]["height"] = 32
    path = save(tmp_path / "a.json", content)
    assert sorted(labels(build(path))) == [2, 3]
    assert sorted(labels(build(path, filter_cfg=None))) == [1, 2, 3]
    assert sorted(labels(build(path, test_mode=True))) == [1, 2, 3]


def test_fewer_classes(tmp_path: Path) -> None:
    path = save(tmp_path / "a.json", coco([("dog", 1), ("car", 1), ("cat", 2)], crowd=()))
    dataset = build(path, metainfo={"classes": ("dog", "car")}, test_mode=False)
    assert labels(dataset) == {1: [1]}
    assert dataset.metainfo["base_classes"] == ("car",)
    assert dataset.metainfo["novel_classes"] == ("dog",)


@pytest.mark.parametrize(
    ("names", "test_mode", "message"),
    [
        (BASE_CLASSES, True, "lacks 17 of the categories: 'airplane'"),
        (BASE_CLASSES[1:], False, "lacks 1 of the categories: 'person'"),
        (COCO_CLASSES[::-1], True, "another order"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path: Path, names, test_mode, message) -> None:
    path = save(tmp_path / "a.json", coco([("car", 1)], names))
    with pytest.raises(ValueError, match=message) as caught:
        build(path, test_mode=test_mode)
    assert str(path) in str(caught.value)


def test_unknown_categories_are_named(tmp_path: Path) -> None:
    content = coco([("car", 1)], crowd=())
    content["categories"].append({"id": 9999, "name": "unicorn"})
    build(save(tmp_path / "b.json", content))  # nothing is annotated with it
    content["annotations"] += [{**content["annotations"][0], "id": 9, "category_id": 9999}]
    with pytest.raises(ValueError, match="1 unknown categories: 'unicorn'"):
        build(save(tmp_path / "a.json", content))
    unused = {"unused_classes": ("unicorn", *(set(COCO_CLASSES) - set(OV_CLASSES)))}
    assert labels(build(tmp_path / "a.json", metainfo=unused)) == {1: [2]}


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("car", "unicorn"), "class 'unicorn' must be once"),
        (("car", "car"), r"has 'car' more than once \(places 0, 1\)"),
        ("car", r"is the text 'car', .*\('car',\)"),
    ],
)
def test_metainfo_that_contradicts_itself(tmp_path: Path, classes, message) -> None:
    path = save(tmp_path / "a.json", coco([("car", 1)]))
    with pytest.raises(ValueError, match=message):
        build(path, metainfo={"classes": classes})


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="set data_root and ann_file"):
        build(tmp_path / "none.json")
    broken = tmp_path / "broken.json"
    broken.write_text('{"images": [')
    with pytest.raises(ValueError, match="is no json"):
        build(broken)
    with pytest.raises(ValueError, match="no list of annotations"):
        build(save(tmp_path / "part.json", {"images": [], "categories": []}))


def test_lvis_takes_classes_and_flags_from_the_json(tmp_path: Path) -> None:
    content = lvis()
    content["categories"].reverse()
    path = save(tmp_path / "a.json", content)
    dataset = build(path, type="OVLVISDataset", data_prefix={"img": str(tmp_path)})
    assert dataset.metainfo["classes"] == ("person", "dog", "car")
    assert dataset.metainfo["base_classes"] == ("person", "dog")
    assert dataset.metainfo["novel_classes"] == ("car",)
    assert labels(dataset) == {1: [0], 2: [1]}
    assert dataset.get_data_info(0)["img_path"] == str(tmp_path / "train2017/000000000001.jpg")
    assert dataset.get_data_info(0)["instances"][0]["mask"]
    with pytest.raises(ValueError, match="another order"):
        build(path, type="OVLVISDataset", test_mode=True)


def test_lvis_errors(tmp_path: Path) -> None:
    path = save(tmp_path / "a.json", coco([("car", 1)]))
    with pytest.raises(ValueError, match="category 'person'.*has no frequency"):
        build(path, type="OVLVISDataset")
    with pytest.raises(ValueError, match="takes classes from the json"):
        build(path, type="OVLVISDataset", metainfo={"classes": ("car",)})


@pytest.mark.skipif(not LVIS_100.is_file(), reason="no real LVIS annotations")
def test_real_lvis_annotations() -> None:
    test = build(LVIS_100, type="OVLVISDataset", test_mode=True)
    assert isinstance(test, OVLVISDataset)
    assert len(test) == 100
    assert len(test.metainfo["classes"]) == 1230
    # Class 669 of this release is the one whose spelling differs from that of mmdet's v1 list.
    assert test.metainfo["classes"][668].startswith("speaker_(")
    boxes = sum(map(len, labels(test).values()))
    train = build(LVIS_100, type="OVLVISDataset")
    base = set(train.metainfo["base_classes"])
    kept = [label for image in labels(train).values() for label in image]
    assert 0 < len(kept) < boxes
    assert {train.metainfo["classes"][label] for label in kept} <= base
