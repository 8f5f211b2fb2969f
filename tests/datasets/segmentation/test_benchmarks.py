"""Classes, palettes and label rules of the benchmarks, on miniatures written here."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine import fileio
from mmseg.datasets import (
    ADE20KDataset,
    COCOStuffDataset,
    PascalContextDataset,
    PascalContextDataset59,
    PascalVOCDataset,
)
from mmseg.registry import DATASETS
from PIL import Image

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.datasets import (
    CATSegContext59Dataset,
    COCOObjectDataset,
    PascalVOC20bDataset,
    PascalVOC20Dataset,
    ShapeScenesDataset,
)
from mmclipdis.engine import VocabularyHook

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


def test_voc20b_asks_for_59_names_and_labels_the_background_20(tmp_path: Path) -> None:
    args = write(tmp_path, [[0, 1, 15], [20, 255, 0]])
    data = PascalVOC20bDataset(ann_file="val.txt", **args)
    assert data[0]["gt_seg_map"].tolist() == [[20, 0, 14], [19, 255, 20]]
    classes = data.metainfo["classes"]
    assert classes[:20] == PascalVOCDataset.METAINFO["classes"][1:]
    assert len(classes) == len(set(classes)) == len(data.metainfo["palette"]) == 59
    context = {"diningtable", *PascalContextDataset59.METAINFO["classes"]} - {"table"}
    assert set(classes) == context
    assert list(classes[20:]) == sorted(classes[20:])
    assert data.metainfo["background_from"] == 20


def test_voc20b_has_fixed_classes_and_numbers(tmp_path: Path) -> None:
    args = write(tmp_path, [[0]])
    with pytest.raises(ValueError, match="renumbers VOC's labels by itself"):
        PascalVOC20bDataset(reduce_zero_label=True, **args)
    with pytest.raises(ValueError, match="fixed classes; .* vocabulary of 59 names, too"):
        PascalVOC20bDataset(metainfo={"classes": ("cat",)}, **args)


def test_the_names_of_voc20bs_background_can_be_others(tmp_path: Path) -> None:
    data = PascalVOC20bDataset(ann_file="val.txt", **write(tmp_path, [[0]]))
    names = [*data.metainfo["classes"][:20], *(f"anything {i}" for i in range(39))]
    model = torch.nn.Module()
    model.set_vocabulary, model.follow_dataset = None, False  # None: not to be called
    runner = SimpleNamespace(model=model, test_dataloader=SimpleNamespace(dataset=data))
    model.vocabulary = Vocabulary.from_names(names)
    VocabularyHook().before_test(runner)
    model.vocabulary = Vocabulary.from_names(names[:-1])
    with pytest.raises(ValueError, match="58 classes, but PascalVOC20bDataset labels 59"):
        VocabularyHook().before_test(runner)


def test_context59_of_catseg_differs_from_mmsegs_in_one_name(tmp_path: Path) -> None:
    theirs = PascalContextDataset59.METAINFO
    ours = CATSegContext59Dataset.METAINFO
    pairs = enumerate(zip(theirs["classes"], ours["classes"], strict=True))
    assert [(i, *pair) for i, pair in pairs if pair[0] != pair[1]] == [(49, "table", "diningtable")]
    assert ours["palette"] == theirs["palette"]
    data = CATSegContext59Dataset(ann_file="val.txt", **write(tmp_path, [[0, 1, 50, 59]]))
    assert data[0]["gt_seg_map"].tolist() == [[255, 0, 49, 58]]


def test_blanks_in_ade20ks_names_do_not_reach_the_prompts() -> None:
    names = ADE20KDataset.METAINFO["classes"]
    blank = [i for i, name in enumerate(names) if name != name.strip()]
    assert blank == [names.index("bed ")]
    assert Vocabulary.from_names(names).class_names[blank[0]] == "bed"


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
    with pytest.raises(ValueError, match=r"a.jpg has 2 x 2 pixels .* label map .*a.png has 2 x 3;"):
        data[0]
