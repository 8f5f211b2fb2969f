"""Classes, palettes and label rules of the benchmarks, on miniatures written here."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine import fileio
from mmseg.datasets import COCOStuffDataset, PascalContextDataset, PascalVOCDataset
from mmseg.registry import DATASETS
from PIL import Image

from mmclipdis.datasets import COCOObjectDataset, PascalVOC20Dataset, ShapeScenesDataset

LOAD: list[dict[str, Any]] = [
    {"type": "mmseg.LoadReadableImage"},
    {"type": "mmseg.LoadReadableAnnotations"},
]


def write(root: Path, labels: list[list[int]], suffix: str = ".png") -> dict[str, Any]:
    """One photo and its label map; returns the arguments of a data set that reads them."""
    array = np.array(labels, dtype=np.uint8)
    (root / "img").mkdir()
    (root / "ann").mkdir()
    Image.fromarray(np.zeros((*array.shape, 3), dtype=np.uint8)).save(root / "img" / "a.jpg")
    Image.fromarray(array).save(root / "ann" / f"a{suffix}")
    (root / "val.txt").write_text("a\n")
    prefix = {"img_path": "img", "seg_map_path": "ann"}
    return {"data_root": str(root), "data_prefix": prefix, "pipeline": LOAD}


def test_voc20_is_voc_without_background(tmp_path: Path) -> None:
    data = PascalVOC20Dataset(ann_file="val.txt", **write(tmp_path, [[0, 1], [20, 255]]))
    assert data.metainfo["classes"] == PascalVOCDataset.METAINFO["classes"][1:]
    assert data[0]["gt_seg_map"].tolist() == [[255, 0], [19, 255]]
    palette = dict(zip(data.metainfo["classes"], data.metainfo["palette"], strict=True))
    changed = {"bird": [0, 0, 192], "boat": [128, 128, 0], "car": [192, 128, 64]}
    voc = dict(zip(*(PascalVOCDataset.METAINFO[k] for k in ("classes", "palette")), strict=True))
    assert {k: v for k, v in palette.items() if v != voc[k]} == changed


def test_coco_object_ignores_no_pixel(tmp_path: Path) -> None:
    data = COCOObjectDataset(**write(tmp_path, [[0, 1], [80, 2]], "_instanceTrainIds.png"))
    classes, palette = data.metainfo["classes"], data.metainfo["palette"]
    assert (len(classes), len(palette)) == (81, 81)
    assert (classes[0], classes[1], classes[80]) == ("background", "person", "toothbrush")
    assert palette[0] == [0, 0, 0]
    assert palette[1:] == COCOStuffDataset.METAINFO["palette"][:80]
    assert data[0]["gt_seg_map"].tolist() == [[0, 1], [80, 2]]


def test_context_sets_answer_to_the_names_of_the_papers() -> None:
    assert DATASETS.get("PascalContext60Dataset") is PascalContextDataset
    assert len(DATASETS.get("PascalContext59Dataset").METAINFO["classes"]) == 59


def test_missing_folder_and_split_are_named(tmp_path: Path) -> None:
    args = write(tmp_path, [[0]])
    with pytest.raises(FileNotFoundError, match="ann_file"):
        PascalVOC20Dataset(ann_file="test.txt", **args)
    args["data_prefix"] = {"img_path": "photos", "seg_map_path": "ann"}
    with pytest.raises(FileNotFoundError, match=r"photos.*data_root"):
        PascalVOC20Dataset(ann_file="val.txt", **args)


@pytest.mark.parametrize("kind", [COCOObjectDataset, PascalVOC20Dataset, ShapeScenesDataset])
def test_a_folder_without_a_photo_and_an_empty_split_are_named(tmp_path: Path, kind: type) -> None:
    args = write(tmp_path, [[0]])
    with pytest.raises(FileNotFoundError, match=r"img' ends with '\.jpeg'; set img_suffix"):
        kind(img_suffix=".jpeg", **args)
    (tmp_path / "val.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"val\.txt' lists no photo"):
        kind(ann_file="val.txt", **args)


@pytest.mark.parametrize("content", [b"", b"this is no image"])
@pytest.mark.parametrize(("file", "what"), [("img/a.jpg", "image"), ("ann/a.png", "label map")])
def test_unreadable_files_are_named(tmp_path: Path, content: bytes, file: str, what: str) -> None:
    data = PascalVOC20Dataset(ann_file="val.txt", **write(tmp_path, [[0, 1], [2, 3]]))
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=f"cannot read .*{file} as an? {what}"):
        data[0]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
@pytest.mark.parametrize("file", ["img/a.jpg", "ann/a.png"])
def test_what_the_system_refuses_is_not_called_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, number: int
) -> None:
    data = PascalVOC20Dataset(ann_file="val.txt", **write(tmp_path, [[0, 1], [2, 3]]))
    get = fileio.get

    def refuse(path: str, **options: Any) -> bytes:
        if path.endswith(file):
            raise OSError(number, os.strerror(number), path)
        return bytes(get(path, **options))

    monkeypatch.setattr(fileio, "get", refuse)
    with pytest.raises(OSError, match=os.strerror(number)) as error:
        data[0]
    assert error.value.errno == number and error.value.filename.endswith(file)


@pytest.mark.parametrize("file", ["img/a.jpg", "ann/a.png"])
def test_missing_files_are_named(tmp_path: Path, file: str) -> None:
    data = PascalVOC20Dataset(ann_file="val.txt", **write(tmp_path, [[0, 1], [2, 3]]))
    (tmp_path / file).unlink()
    with pytest.raises(FileNotFoundError, match=file):
        data[0]


def test_label_map_of_another_size_is_refused(tmp_path: Path) -> None:
    data = PascalVOC20Dataset(ann_file="val.txt", **write(tmp_path, [[0, 1], [2, 3]]))
    Image.fromarray(np.zeros((3, 2), dtype=np.uint8)).save(tmp_path / "ann" / "a.png")
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(2, 2\)"):
        data[0]
