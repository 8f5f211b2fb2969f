"""VOC's XML files become labels, under each of the three rules for difficult objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from mmclipdis.datasets.recognition.voc import VOCMultiLabelDataset

OBJECT = """  <object>
    <name>{name}</name>{difficult}
    <bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>
    <part><name>head</name></part>
  </object>
"""
PHOTOS: dict[str, Sequence[tuple[str, str]]] = {
    "000005": (("cat", "0"), ("dog", "1"), ("dog", "0"), ("person", "")),
    "000007": (("cat", "1"), ("tvmonitor", "0")),
    "000009": (("sofa", "1"),),  # nothing but difficult
}


def write(folder: Path, photos=PHOTOS, split: str = "trainval") -> Path:
    for name in ("ImageSets/Main", "JPEGImages", "Annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, objects in photos.items():
        found = "".join(
            OBJECT.format(name=kind, difficult=hard and f"<difficult>{hard}</difficult>")
            for kind, hard in objects
        )
        (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{found}</annotation>")
        Image.new("RGB", (8, 6)).save(folder / "JPEGImages" / f"{name}.jpg")
    (folder / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(photos) + "\n\n")
    return folder


def dataset(folder: Path, **kwargs) -> VOCMultiLabelDataset:
    return VOCMultiLabelDataset(**{**dict(data_root=str(folder), split="trainval"), **kwargs})


def labels(data: VOCMultiLabelDataset) -> list[dict[str, int]]:
    """The labels that are not 0, by class."""
    rows = [data.get_data_info(i)["gt_score"] for i in range(len(data))]
    names = data.metainfo["classes"]
    return [{name: int(v) for name, v in zip(names, row) if v} for row in rows]


@pytest.mark.parametrize(("policy", "value"), [("negative", 0), ("ignore", -1), ("positive", 1)])
def test_difficult_objects(tmp_path: Path, policy: str, value: int) -> None:
    data = dataset(write(tmp_path), difficult=policy)
    expected = [
        {"cat": 1, "dog": 1, "person": 1},  # an easy dog beside the difficult one
        {"cat": value, "tvmonitor": 1},
        {"sofa": value},
    ]
    assert labels(data) == [{k: v for k, v in row.items() if v} for row in expected]


def test_the_default_is_the_protocol_and_keeps_every_photo(tmp_path: Path) -> None:
    data = dataset(write(tmp_path))
    assert labels(data) == [{"cat": 1, "dog": 1, "person": 1}, {"tvmonitor": 1}, {}]
    assert len(dataset(tmp_path, filter_empty=True)) == 2
    classes = data.metainfo["classes"]
    assert len(classes) == 20 and (classes[0], classes[-1]) == ("aeroplane", "tvmonitor")
    info = data.get_data_info(1)
    assert info["img_id"] == "000007"
    assert info["img_path"] == str(tmp_path / "JPEGImages" / "000007.jpg")


def test_a_sample(tmp_path: Path) -> None:
    pipeline = [dict(type="LoadReadableImage"), dict(type="PackMultiLabelInputs")]
    item = dataset(write(tmp_path), pipeline=pipeline)[0]
    assert item["inputs"].shape == (3, 6, 8)
    assert item["data_samples"].gt_score.nonzero().flatten().tolist() == [7, 11, 14]
    assert item["data_samples"].img_id == "000005"


def test_selected_classes(tmp_path: Path) -> None:
    data = dataset(write(tmp_path), metainfo=dict(classes=("person", "cat")))
    assert data.metainfo["classes"] == ("person", "cat")
    assert labels(data) == [{"person": 1, "cat": 1}, {}, {}]
    with pytest.raises(ValueError, match=r"no class 'aeroplan'; did you mean aeroplane\?"):
        dataset(tmp_path, metainfo=dict(classes=("aeroplan",)))


def test_partial_labels_leave_ignored_ones_unknown(tmp_path: Path) -> None:
    photos = {f"{i:06d}": (("cat", "1"), ("dog", "0")) for i in range(60)}
    data = dataset(write(tmp_path, photos), difficult="ignore", partial=0.5)
    rows = labels(data)
    assert all(row["cat"] == -1 for row in rows)
    assert 10 < sum(row.get("dog") == 1 for row in rows) < 50
    assert any(row.get("sheep") == -1 for row in rows)


def test_other_data_in_this_layout_by_a_subclass(tmp_path: Path) -> None:
    class Birds(VOCMultiLabelDataset):
        METAINFO = dict(classes=("wren", "rook"))

    data = Birds(str(write(tmp_path, {"1": (("rook", "0"),)})), "trainval")
    assert labels(data) == [{"rook": 1}]


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, {"000005": (("moon", "0"),)})
    with pytest.raises(ValueError, match="000005.xml: an object is called 'moon', which is none"):
        dataset(folder)
    (folder / "Annotations/000005.xml").write_text("<annotation>")
    with pytest.raises(ValueError, match="000005.xml is no XML"):
        dataset(folder)
    (folder / "Annotations/000005.xml").unlink()
    with pytest.raises(FileNotFoundError, match="no annotation .*000005.xml'; set data_prefix"):
        dataset(folder)
    (folder / "ImageSets/Main/dog_train.txt").write_text("000005  1\n000007 -1\n")
    with pytest.raises(ValueError, match="dog_train.txt, line 1: '000005  1' is no name"):
        dataset(folder, split="dog_train")
    with pytest.raises(FileNotFoundError, match="no list .*test.txt'; set split"):
        dataset(folder, split="test")
    with pytest.raises(FileNotFoundError, match="no folder .*data_prefix.ann_path"):
        dataset(folder, data_prefix=dict(ann_path="nowhere"))
    with pytest.raises(ValueError, match=r"difficult must be one of .*'ignore'.*, got 'skip'"):
        dataset(folder, difficult="skip")
