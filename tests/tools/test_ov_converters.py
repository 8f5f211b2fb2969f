"""The converters of OV-COCO and OV-LVIS: golden miniatures, and real annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmclipdis.datasets.detection.classes import BASE_CLASSES, OV_CLASSES
from tests.datasets.detection.files import COCO_ID, GOLDEN, coco, lvis, save
from tests.paths import ROOT
from tools.dataset_converters import ov_coco, ov_lvis

REAL = ROOT / "../shared/data"
TRAIN, VAL = "instances_train2017_seen_2_65_cat.json", "instances_val2017_all_2.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split in ("train2017", "val2017"):
        save(tmp_path / f"instances_{split}.json", coco(GOLDEN))
    return tmp_path


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def ids(content: dict[str, Any], part: str) -> list[int]:
    return [item["id"] for item in content[part]]


def test_golden_coco(folder: Path, capsys) -> None:
    assert ov_coco.main([str(folder)]) == 0
    train, val = read(folder / TRAIN), read(folder / VAL)
    assert (ids(train, "images"), ids(train, "annotations")) == ([1, 4], [500, 501, 505])
    assert ids(val, "images") == [1, 2, 4]
    assert ids(val, "annotations") == [500, 501, 502, 503, 505]
    for content in (train, val):
        assert [category["name"] for category in content["categories"]] == list(OV_CLASSES)
        assert ids(content, "categories") == [COCO_ID[name] for name in OV_CLASSES]
        assert content["info"] == {"year": 2017}
    source = read(folder / "instances_train2017.json")["annotations"]
    assert train["annotations"] == [source[0], source[1], source[5]]
    captured = capsys.readouterr()
    assert "2 images (published 107,761), 3 annotations, 65 categories" in captured.out
    assert "3 images (published 4,836)" in captured.out
    assert captured.err.count("warning") == 0


def test_48_categories(folder: Path) -> None:
    assert ov_coco.main([str(folder), "--splits", "train", "--train-categories", "48"]) == 0
    train = read(folder / "instances_train2017_seen_2.json")
    assert [category["name"] for category in train["categories"]] == list(BASE_CLASSES)
    assert ids(train, "annotations") == [500, 501, 505]
    assert not (folder / VAL).exists()


def test_the_second_run_changes_nothing_and_says_so(folder: Path, capsys) -> None:
    ov_coco.main([str(folder)])
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    capsys.readouterr()
    assert ov_coco.main([str(folder)]) == 0
    assert capsys.readouterr().out.count("nothing to do for") == 2
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    assert after == before


def test_dry_run_writes_nothing(folder: Path, capsys) -> None:
    assert ov_coco.main([str(folder), "--dry-run", "--out", str(folder / "new")]) == 0
    assert capsys.readouterr().out.count("would write") == 2
    assert not (folder / "new").exists()


def test_other_content_is_not_replaced_unasked(folder: Path, capsys) -> None:
    target = save(folder / TRAIN, {"images": "mine"})
    assert ov_coco.main([str(folder)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert read(target) == {"images": "mine"}
    assert ov_coco.main([str(folder), "--overwrite"]) == 0
    assert ids(read(target), "images") == [1, 4]


def test_an_interrupted_write_leaves_nothing(folder: Path, monkeypatch, capsys) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmclipdis.utils.whole_files.os.fsync", full)
    assert ov_coco.main([str(folder)]) == 1
    assert "No space left" in capsys.readouterr().err
    assert len(list(folder.iterdir())) == 2


def test_missing_and_broken_input(folder: Path, capsys) -> None:
    source = folder / "instances_train2017.json"
    source.write_text("{")
    assert ov_coco.main([str(folder)]) == 1
    assert "instances_train2017.json is no json" in capsys.readouterr().err
    save(source, [])
    assert ov_coco.main([str(folder)]) == 1
    assert "no COCO or LVIS annotation file" in capsys.readouterr().err
    source.unlink()
    assert ov_coco.main([str(folder)]) == 1
    assert "no annotation file" in capsys.readouterr().err


@pytest.mark.parametrize(("field", "value"), [("image_id", 77), ("category_id", 7)])
def test_dangling_references_are_named(folder: Path, capsys, field: str, value: int) -> None:
    content = coco(GOLDEN)
    content["annotations"][2][field] = value
    save(folder / "instances_train2017.json", content)
    assert ov_coco.main([str(folder)]) == 1
    assert f"annotation 502 has {field} {value}" in capsys.readouterr().err


def test_a_category_that_is_not_there_is_named(folder: Path, capsys) -> None:
    save(folder / "instances_train2017.json", coco([("car", 1)], BASE_CLASSES[1:]))
    assert ov_coco.main([str(folder)]) == 1
    assert "has no category 'person'" in capsys.readouterr().err


def test_official_input_with_other_counts_warns(folder: Path, monkeypatch, capsys) -> None:
    official = ov_coco.Split("instances_val2017.json", OV_CLASSES, 4, 4_836)
    monkeypatch.setitem(ov_coco.SPLITS, "val", official)
    assert ov_coco.main([str(folder), "--splits", "val"]) == 0
    assert "warning: the input has as many images" in capsys.readouterr().err


def test_golden_lvis(tmp_path: Path, capsys, monkeypatch) -> None:
    source = save(tmp_path / "lvis_v1_train.json", lvis())
    assert ov_lvis.main([str(source), "--dry-run"]) == 0
    target = tmp_path / "lvis_v1_train_seen_1203_cat.json"
    assert not target.exists()
    assert ov_lvis.main([str(source)]) == 0
    content = read(target)
    assert content["categories"] == lvis()["categories"]
    assert content["images"] == lvis()["images"]
    assert content["annotations"] == lvis()["annotations"][:2]
    captured = capsys.readouterr()
    assert "2 annotations (published 1,264,884)" in captured.out
    assert "warning" not in captured.err
    monkeypatch.setattr(ov_lvis, "OFFICIAL_IMAGES", 3)
    assert ov_lvis.main([str(source)]) == 0
    captured = capsys.readouterr()
    assert "nothing to do for" in captured.out
    assert "warning" in captured.err


def test_lvis_needs_frequencies(folder: Path, capsys) -> None:
    assert ov_lvis.main([str(folder / "instances_train2017.json")]) == 1
    assert "has no frequency" in capsys.readouterr().err


@pytest.mark.skipif(not REAL.is_dir(), reason="no real annotations")
def test_real_coco(tmp_path: Path) -> None:
    name = "coco_panoptic_sample/panoptic_coco_detection_format.json"
    content = read(REAL / name)
    save(tmp_path / "instances_val2017.json", content)
    assert ov_coco.main([str(tmp_path), "--splits", "val"]) == 0
    names = {category["id"]: category["name"] for category in content["categories"]}
    kept = [note for note in content["annotations"] if names[note["category_id"]] in OV_CLASSES]
    made = read(tmp_path / VAL)
    assert 0 < len(kept) < len(content["annotations"])
    assert made["annotations"] == kept
    assert [category["name"] for category in made["categories"]] == list(OV_CLASSES)


@pytest.mark.skipif(not REAL.is_dir(), reason="no real annotations")
def test_real_lvis(tmp_path: Path) -> None:
    source = REAL / "lvis_val_100/lvis_val_100.json"
    assert ov_lvis.main([str(source), "--out", str(tmp_path / "o.json")]) == 0
    before, after = read(source), read(tmp_path / "o.json")
    rare = {c["id"] for c in before["categories"] if c["frequency"] == "r"}
    kept = [note for note in before["annotations"] if note["category_id"] not in rare]
    assert after["annotations"] == kept
    assert 0 < len(kept) < len(before["annotations"])
    assert len(after["images"]) == 100
    assert len(after["categories"]) == 1230
