"""The data set on disk: COCO layout whose parts agree with each other."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from mmclipdis.shapes import coco as module
from mmclipdis.shapes.captions import names_in
from mmclipdis.shapes.coco import LABEL_SUFFIX, Settings, categories, write_dataset
from mmclipdis.shapes.world import CLASSES, THINGS
from mmclipdis.utils import processes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shapes") / "data"
    assert write_dataset(out, Settings(train=6, val=5, seed=3))
    return out


def _labels(folder: Path, split: str, index: int) -> np.ndarray:
    path = folder / "annotations" / split / f"{index:012d}{LABEL_SUFFIX}"
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def _digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_instance_masks_agree_with_the_label_map(folder: Path) -> None:
    coco = COCO(str(folder / "annotations" / "instances_val.json"))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(THINGS)
    for image in coco.loadImgs(coco.getImgIds()):
        labels = _labels(folder, "val", image["id"])
        assert labels.shape == (image["height"], image["width"])
        picture = cv2.imread(str(folder / "images" / "val" / image["file_name"]))
        assert picture.shape[:2] == labels.shape
        painted = np.zeros(labels.shape, int)
        for note in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            mask = coco.annToMask(note).astype(bool)
            rows, cols = np.nonzero(mask)
            x, y = cols.min(), rows.min()
            assert note["bbox"] == [x, y, cols.max() + 1 - x, rows.max() + 1 - y]
            assert note["area"] == mask.sum() and note["iscrowd"] == 0
            assert (labels[mask] == note["category_id"] - 1).all()
            painted += mask
        assert painted.max() <= 1
        assert ((labels < len(THINGS)) == (painted == 1)).all()


def test_panoptic_segments_agree_with_the_label_map(folder: Path) -> None:
    document = json.loads((folder / "annotations" / "panoptic_val.json").read_text())
    assert document["categories"] == categories()
    for note in document["annotations"]:
        bgr = cv2.imread(str(folder / "annotations" / "panoptic_val" / note["file_name"]))
        blue, green, red = (bgr[..., i].astype(int) for i in range(3))
        ids = red + 256 * green + 65536 * blue
        labels = _labels(folder, "val", note["image_id"])
        assert set(np.unique(ids)) == {segment["id"] for segment in note["segments_info"]}
        for segment in note["segments_info"]:
            mask = ids == segment["id"]
            rows, cols = np.nonzero(mask)
            x, y = cols.min(), rows.min()
            assert segment["area"] == mask.sum()
            assert segment["bbox"] == [x, y, cols.max() + 1 - x, rows.max() + 1 - y]
            assert (labels[mask] == segment["category_id"] - 1).all()


def test_captions_on_disk_name_what_the_label_map_shows(folder: Path) -> None:
    coco = COCO(str(folder / "annotations" / "captions_val.json"))
    for image in coco.getImgIds():
        counts = np.bincount(_labels(folder, "val", image).ravel(), minlength=len(CLASSES))
        visible = {CLASSES[i] for i in range(len(CLASSES)) if counts[i] >= 15}
        notes = coco.loadAnns(coco.getAnnIds(imgIds=image))
        assert len(notes) == 5
        for note in notes:
            assert set(names_in(note["caption"])) == visible


def test_writing_again_gives_the_same_bytes_also_from_two_processes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Forked, since a process that starts anew imports everything first, for seconds.
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(processes.multiprocessing, "get_context", lambda method: fork)
    write_dataset(tmp_path / "again", Settings(6, 5, 3), workers=2)
    assert _digest(tmp_path / "again") == _digest(folder)


def test_an_image_does_not_depend_on_how_many_there_are(folder: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "few", Settings(2, 1, 3))
    few, many = _digest(tmp_path / "few"), _digest(folder)
    pictures = [name for name in few if name.endswith(".png")]
    assert len(pictures) == 9 and all(few[name] == many[name] for name in pictures)


def test_a_complete_folder_is_left_alone_and_another_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "data"
    assert write_dataset(out, Settings(1, 1, 0))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert not write_dataset(out, Settings(1, 1, 0))
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(FileExistsError, match="pass --overwrite"):
        write_dataset(out, Settings(2, 1, 0))
    (out / "mine.txt").write_text("keep")
    assert write_dataset(out, Settings(2, 1, 0), overwrite=True)
    assert (out / "mine.txt").exists() and len(list((out / "images/train").iterdir())) == 2
    (out / "shapes.json").unlink()  # no longer known to be a data set
    with pytest.raises(FileExistsError, match="does not hold this data set complete"):
        write_dataset(out, Settings(2, 1, 0))


def test_an_interrupted_run_starts_again_and_leaves_what_a_whole_one_leaves(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "data"
    original = module.draw

    def interrupted(split: str, index: int, *others: Any) -> object:
        if (split, index) == ("val", 1):
            raise KeyboardInterrupt
        return original(split, index, *others)

    monkeypatch.setattr(module, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(out, Settings(9, 5, 3))
    assert any(out.rglob("*.png")) and not (out / "shapes.json").exists()
    monkeypatch.setattr(module, "draw", original)
    assert write_dataset(out, Settings(6, 5, 3))
    assert _digest(out) == _digest(folder)


def test_pictures_hold_as_many_objects_as_asked(tmp_path: Path) -> None:
    settings = Settings(6, 2, 3, objects=(4, 6))
    write_dataset(tmp_path, settings)
    notes = json.loads((tmp_path / "annotations/instances_train.json").read_text())
    counts = Counter(note["image_id"] for note in notes["annotations"])
    assert all(3 <= count <= 6 for count in counts.values()) and max(counts.values()) > 4
    assert not write_dataset(tmp_path, settings)
    with pytest.raises(FileExistsError, match='"objects"'):
        write_dataset(tmp_path, Settings(6, 2, 3, objects=(4, 7)))


@pytest.mark.parametrize(
    ("settings", "workers", "message"),
    [
        (Settings(0, 1, 0), 1, "train must be at least 1 image, got 0"),
        (Settings(1, 1, -1), 1, "seed must be >= 0"),
        (Settings(1, 1, 0), 0, "workers >= 1"),
        (Settings(1, 1, 0, objects=(4, 3)), 1, r"1 <= least <= most, got \(4, 3\)"),
        (Settings(1, 1, 0, objects=(0, 3)), 1, "1 <= least <= most"),
    ],
)
def test_bad_settings_are_refused(
    tmp_path: Path, settings: Settings, workers: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_dataset(tmp_path / "data", settings, workers=workers)
    assert not (tmp_path / "data").exists()
