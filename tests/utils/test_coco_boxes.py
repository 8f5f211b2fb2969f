"""A COCO json is completed by what can be computed; what readers leave out is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmclipdis.utils.coco_boxes import check_coco, say_what_is_odd


def content(**note: Any) -> dict[str, Any]:
    values = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 6, 4], **note}
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}],
        "annotations": [{k: v for k, v in values.items() if v is not None}],
        "categories": [{"id": 1, "name": "cat"}],
    }


TRIANGLE = [[0, 0, 6, 0, 0, 4]]


@pytest.mark.parametrize(
    ("segmentation", "area"),
    [
        pytest.param(None, 24.0, id="box"),
        pytest.param(TRIANGLE, 12.0, id="polygon"),
        pytest.param([*TRIANGLE, [10, 10, 12, 10, 12, 12, 10, 12]], 16.0, id="two_polygons"),
        pytest.param({"size": [20, 30], "counts": [5, 7, 588]}, 7.0, id="runs"),
        pytest.param({"size": [1, 4], "counts": "04"}, 4.0, id="compressed_runs"),
    ],
)
def test_golden_area(segmentation: Any, area: float) -> None:
    sample = content(segmentation=segmentation)
    found = check_coco(sample, "a.json")
    assert sample["annotations"][0]["area"] == area
    assert sample["annotations"][0]["iscrowd"] == 0
    assert found.filled == {"iscrowd=0": 1, "area": 1} and not found.dropped


def test_golden_box_of_polygons() -> None:
    sample = content(bbox=None, segmentation=[[3, 4, 9, 4, 9, 5], [1, 2, 2, 2, 2, 7]], area=9)
    check_coco(sample, "a.json")
    assert sample["annotations"][0]["bbox"] == [1.0, 2.0, 8.0, 5.0]


def test_the_size_of_an_image_is_that_of_its_photo(tmp_path: Path) -> None:
    Image.new("L", (7, 5)).save(tmp_path / "a.png")
    sample = content(area=24)
    del sample["images"][0]["height"]
    check_coco(sample, "a.json", tmp_path)
    assert (sample["images"][0]["height"], sample["images"][0]["width"]) == (5, 7)


@pytest.mark.parametrize(
    ("box", "why"),
    [
        ([30, 2, 6, 4], "outside of their image"),
        ([-9, 2, 6, 4], "outside of their image"),
        ([1, 2, 0, 4], "without area"),
        ([1, 2, -6, -4], "without area"),
    ],
)
def test_boxes_that_no_reader_takes_are_counted(box: list[float], why: str) -> None:
    assert check_coco(content(bbox=box, area=24), "a.json").dropped == {why: 1}


def test_a_look_changes_nothing() -> None:
    sample = content()
    assert "readers fill in" in say_what_is_odd(sample, "a.json")
    assert sample == content()
