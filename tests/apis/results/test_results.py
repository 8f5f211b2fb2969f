"""Results as files, rows, COCO's json, and for other packages: nothing is lost on the way."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from mmclipdis.apis import Detections, HeatMap, Segmentation, Tags
from mmclipdis.apis.results import Result, to_coco, to_dataframe
from mmclipdis.apis.results.masks import box_of, polygons_of, runs_of
from tests.faults.endings import raises

PHOTO = np.full((20, 30, 3), 128, np.uint8)


def segmentation(path: str | None = "trip/a.jpg", frame: int | None = None) -> Segmentation:
    """Sky above, two roads below, a corner that is nothing."""
    labels = np.zeros((20, 30), np.int64)
    labels[10:, :10] = labels[10:, 20:] = 2
    labels[:3, :4] = 255
    return Segmentation(labels, ("sky", "car", "road"), PHOTO, path and Path(path), frame)


def detections() -> Detections:
    boxes = np.array([[1, 2, 11, 12], [5, 5, 9.5, 8]], np.float32)
    scores, labels = np.array([0.9, 0.25], np.float32), np.array([1, 0])
    return Detections(boxes, scores, labels, ("kite", "fish"), PHOTO, Path("trip/b.jpg"))


def tags() -> Tags:
    scores, local = np.array([0.1, 0.6, 0.3], np.float32), np.array([0.2, 0.3, 0.1], np.float32)
    names = ("sky", "car", "road")
    return Tags(scores, names, PHOTO, Path("trip/c.jpg"), local, threshold=0.2)


ALL: list[Result] = [segmentation(), detections(), tags()]


@pytest.mark.parametrize("result", ALL, ids=lambda result: type(result).__name__)
def test_a_result_says_what_it_is_in_one_line(result: Result) -> None:
    line = repr(result)
    assert "\n" not in line and len(line) < 120
    assert f"{result.path.name} (30 x 20" in line
    assert copy.copy(result).names == result.names
    assert pickle.loads(pickle.dumps(result)).names == result.names


def test_a_way_to_the_model_is_not_pickled() -> None:
    result = Tags(np.ones(1), ("sky",), PHOTO, look=lambda *_: None)
    assert pickle.loads(pickle.dumps(result)).look is None and result.look is not None


@pytest.mark.parametrize("result", ALL, ids=lambda result: type(result).__name__)
def test_a_result_is_drawn_into_a_file_or_a_folder(result: Result, tmp_path: Path) -> None:
    named = result.save(tmp_path / "out" / "x.jpg")
    inside = result.save(tmp_path / "out")
    assert inside == tmp_path / "out" / f"{result.path.stem}.png"
    for path in (named, inside):
        with Image.open(path) as picture:
            assert picture.width >= 30
    assert result._repr_png_().startswith(b"\x89PNG")
    raises(f"{type(result).__name__} draws .*; there is no kind 'pie'", result.save, tmp_path,
           kind="pie")  # fmt: skip
    raises("'.xyz' is no ending of a picture", result.save, tmp_path / "a.xyz")


def test_a_label_map_is_written_as_it_is(tmp_path: Path) -> None:
    result = segmentation()
    with Image.open(result.save(tmp_path / "a.png", kind="labels")) as picture:
        assert np.array_equal(np.asarray(picture), result.labels)
    names = tuple(map(str, range(300)))
    large = Segmentation(np.full((4, 4), 299), names, PHOTO[:4, :4])
    with Image.open(large.save(tmp_path / "b.png", kind="labels")) as picture:
        assert np.asarray(picture).max() == 299
    with Image.open(result.save(tmp_path / "c.png", 1.0, kind="overlay")) as picture:
        assert np.array_equal(np.asarray(picture)[0, 0], [128] * 3)
        assert not np.array_equal(np.asarray(picture)[19, 0], [128] * 3)


def test_rows_hold_plain_values_in_order() -> None:
    rows = segmentation(frame=7).to_rows()
    assert [row["name"] for row in rows] == ["sky", "road", "none"]
    assert rows[0] == dict(photo="trip/a.jpg", frame=7, name="sky", share=388 / 600, pixels=388)
    assert sum(row["pixels"] for row in rows) == 600
    (first, second) = detections().to_rows()
    assert (first["name"], first["x2"], second["y2"]) == ("fish", 11.0, 8.0)
    assert [row["name"] for row in tags().to_rows()] == ["car", "road"]
    assert tags().to_rows()[0]["local"] == pytest.approx(0.3)
    json.dumps([row for result in ALL for row in result.to_rows()])


def test_cocos_json_has_exact_masks_and_boxes() -> None:
    result = segmentation()
    content = json.loads(json.dumps(result.to_coco(image_id=3, annotation_id=10)))
    assert content["images"] == [dict(id=3, file_name="a.jpg", height=20, width=30)]
    assert [c["name"] for c in content["categories"]] == ["sky", "car", "road"]
    sky, road = content["annotations"]
    assert (sky["id"], road["id"], road["category_id"], road["image_id"]) == (10, 11, 3, 3)
    assert np.array_equal(coco.decode(road["segmentation"]), result.labels == 2)
    assert road["bbox"] == [0, 10, 30, 10] and road["area"] == 200
    first, _ = detections().to_coco()["annotations"]
    assert first["bbox"] == [1, 2, 10, 10] and first["score"] == pytest.approx(0.9)
    raises("masks must be 'rle' or 'polygons', got 'png'", result.to_coco, masks="png")


def test_polygons_cover_the_pixels_of_a_mask() -> None:
    mask = segmentation().labels == 2
    polygons = polygons_of(mask)
    assert len(polygons) == 2
    drawn = coco.decode(coco.merge(coco.frPyObjects(polygons, 20, 30)))
    assert np.array_equal(drawn, mask)
    (one,) = polygons_of(np.pad(np.ones((1, 1), bool), 3))
    assert sorted(zip(one[::2], one[1::2])) == [(3, 3), (3, 4), (4, 3), (4, 4)]
    assert polygons_of(np.zeros((4, 4), bool)) == [] and box_of(np.zeros((4, 4), bool)) == [0] * 4
    blob = np.random.default_rng(0).random((12, 12)) > 0.3
    assert coco.decode(runs_of(blob)).sum() == blob.sum()


def test_several_photos_make_one_json() -> None:
    merged = to_coco([segmentation(), segmentation("trip/z.jpg")], masks="polygons")
    assert [image["id"] for image in merged["images"]] == [1, 2]
    ids = [note["id"] for note in merged["annotations"]]
    assert ids == [1, 2, 3, 4]
    raises("photo 2 was searched for other words", to_coco, [segmentation(), detections()])


def test_detections_are_filtered_and_counted() -> None:
    found = detections()
    assert len(found) == 2 and len(found.above(0.5)) == 1 and found.label_names == ("fish", "kite")
    assert found.counts() == {"kite": 1, "fish": 1}
    all_boxes, sure = np.asarray(found.draw(threshold=0)), np.asarray(found.draw())
    assert not np.array_equal(all_boxes, sure)  # 0.25 is not drawn where nobody asked for it
    empty = found.above(0.95)
    assert len(empty) == 0 and "no boxes" in repr(empty) and empty.to_rows() == []
    assert np.array_equal(np.asarray(empty.draw())[::16, ::16], PHOTO)  # small: enlarged


def test_masks_of_detections_come_along() -> None:
    masks = np.zeros((2, 20, 30), bool)
    masks[0, 3:6, 3:9] = True
    found = Detections(*(getattr(detections(), n) for n in ("boxes", "scores", "labels", "names")),
                       photo=PHOTO, masks=masks)  # fmt: skip
    note = found.to_coco()["annotations"][0]
    assert note["area"] == 18 and coco.decode(note["segmentation"]).sum() == 18
    assert not np.array_equal(np.asarray(found.draw())[72, 104], [128] * 3)  # x = 6, y = 4


def fake_pandas() -> Any:
    """A pandas whose frames are the rows and columns that it was given."""
    package: Any = ModuleType("pandas")
    package.DataFrame = lambda rows, columns: (rows, columns)
    return package


def test_other_packages_are_optional_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "supervision", None)
    raises("needs pandas, which is not installed; run: pip install pandas", tags().to_dataframe)
    for result in (segmentation(), detections()):
        raises("needs supervision, which is not installed", result.to_supervision)
    raises("Tags has no boxes or masks, which supervision is about", tags().to_supervision)


def test_other_packages_get_what_they_expect(monkeypatch: pytest.MonkeyPatch) -> None:
    class Taken(SimpleNamespace):
        @classmethod
        def empty(cls) -> Any:
            return cls(xyxy=np.zeros((0, 4)))

    package: Any = ModuleType("supervision")
    package.Detections = Taken
    monkeypatch.setitem(sys.modules, "supervision", package)
    monkeypatch.setitem(sys.modules, "pandas", fake_pandas())
    found = detections().to_supervision()
    assert found.xyxy.shape == (2, 4) and found.class_id.tolist() == [1, 0] and found.mask is None
    assert found.data["class_name"].tolist() == ["fish", "kite"]
    parts = segmentation().to_supervision()
    assert parts.mask.shape == (2, 20, 30) and parts.xyxy[1].tolist() == [0, 10, 30, 20]
    nothing = Segmentation(np.full((20, 30), 255), ("sky",), PHOTO)
    assert len(nothing.to_supervision().xyxy) == 0
    assert to_dataframe([tags(), tags()]) == (tags().to_rows() * 2, tags().columns())


def test_a_heat_map_is_drawn_from_blue_to_red(tmp_path: Path) -> None:
    values = np.zeros((20, 30), np.float32)
    values[5, 7] = 0.5
    heat = HeatMap(values, "red kite", "cosine", PHOTO, Path("a.jpg"))
    assert heat.peak() == (7, 5)
    assert repr(heat) == "HeatMap('red kite', 30 x 20: cosine 0.00 to 0.50, most at x=7, y=5)"
    drawn = np.asarray(heat.draw(1.0)).astype(int)
    assert drawn[5, 7, 0] > drawn[5, 7, 2] and drawn[0, 0, 2] > drawn[0, 0, 0]
    assert heat.save(tmp_path).name == "a_red_kite.png" and heat._repr_png_()[1:4] == b"PNG"
    assert replace(heat, frame=3).save(tmp_path).name == "a_000003_red_kite.png"
    raises(r"opacity must be a number in \[0, 1\], got 2", heat.draw, 2)
    faint = np.asarray(heat.draw(1.0, limits=(0, 5))).astype(int)
    assert faint[5, 7, 2] > faint[5, 7, 0], "a tenth of what is red"
    same = np.asarray(heat.draw(1.0, limits=(0, 0.25))).astype(int)
    assert (same == drawn).all(), "what is above is red, too"
    raises(r"limits=\(1, 1\): the first must be below", heat.draw, 0.6, (1, 1))


@pytest.mark.parametrize("result", ALL, ids=lambda result: type(result).__name__)
def test_columns_are_those_of_the_rows(result: Result) -> None:
    assert all([*row] == result.columns() for row in result.to_rows())


def test_a_table_of_nothing_has_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", fake_pandas())
    rows, columns = to_dataframe([detections().above(0.99), tags()])
    assert len(rows) == 2
    assert columns == [*detections().columns(), "local"]


def test_a_picture_does_not_replace_its_photo(tmp_path: Path) -> None:
    photo = tmp_path / "a.png"
    Image.fromarray(PHOTO).save(photo)
    before = photo.read_bytes()
    raises("is the photo itself", segmentation(str(photo)).save, tmp_path)
    assert photo.read_bytes() == before
    assert segmentation(str(photo)).save(tmp_path / "found").name == "a.png"
