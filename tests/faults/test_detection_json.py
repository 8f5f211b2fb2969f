"""Faults of COCO's and LVIS's json, for every reader of such files."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope

import mmclipdis  # noqa: F401  (registers)
from mmclipdis.apis.preflight import check_data
from mmclipdis.datasets import CocoMultiLabelDataset, DistillImageDataset, PanopticRegionsDataset
from mmclipdis.engine import DataCheckHook
from tests.faults.endings import raises
from tests.faults.tiny import runner
from tools.dataset_converters import ov_coco

Content = dict[str, Any]
Change = Callable[[Content], Any]
NAMES = ("cat", "dog")


@pytest.fixture(autouse=True)
def mmdet_scope() -> None:
    init_default_scope("mmdet")


def sound() -> Content:
    """Two photos of 60 x 40 with two boxes each."""
    box = {"bbox": [5.0, 5.0, 20.0, 10.0], "area": 200.0, "iscrowd": 0}
    corners = [[5, 5, 25, 5, 25, 15, 5, 15]]
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in (1, 2)],
        "annotations": [
            {"id": 10 * i + k, "image_id": i, "category_id": k, "segmentation": corners, **box}
            for i in (1, 2)
            for k in (1, 2)
        ],
        "categories": [{"id": k, "name": name} for k, name in enumerate(NAMES, start=1)],
    }


def notes(content: Content, **values: Any) -> None:
    """Set values of all annotations; None takes a key away."""
    for note in content["annotations"]:
        for key, value in values.items():
            note.pop(key, None)
            if value is not None:
                note[key] = value


def save(folder: Path, content: Any, name: str = "a.json") -> Path:
    from PIL import Image

    for number in (1, 2):
        Image.new("RGB", (60, 40)).save(folder / f"{number}.png")
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def config(path: Path, kind: str = "OVCocoDataset", **options: Any) -> Content:
    metainfo: Content = {"classes": NAMES}
    if kind == "OVCocoDataset":
        metainfo |= {"base_classes": NAMES, "novel_classes": (), "unused_classes": ()}
    return {
        "type": kind,
        "ann_file": str(path),
        "data_prefix": {"img": str(path.parent)},
        "metainfo": metainfo,
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations", "with_bbox": True},
            {"type": "PackDetInputs"},
        ],
        **options,
    }


FILES = [
    pytest.param(b'{"images": [', "is no json .*download it again", id="truncated"),
    pytest.param(b"\x89PNG\r\n", "is no json", id="no_json"),
    pytest.param(gzip.compress(b"{}"), r"compressed \(gzip\); unpack it", id="gzip"),
    pytest.param([], "holds a list instead of images", id="a_list"),
    pytest.param({"images": []}, "no list of annotations and no list of categories", id="no_lists"),
    pytest.param({**sound(), "images": {}}, "no list of images", id="images_a_dict"),
    pytest.param({**sound(), "categories": ["cat"]}, r"categories\[0\] is 'cat', no dict",
                 id="categories_of_text"),
]  # fmt: skip
ENTRIES = [
    pytest.param(lambda c: c["images"][0].pop("id"), r"images\[0\] has no id", id="image_no_id"),
    pytest.param(lambda c: c["images"][1].update(id=1), r"images\[0\] and images\[1\] have the "
                 "same id 1", id="image_ids_equal"),
    pytest.param(lambda c: c["images"][1].pop("file_name"), "image 2 has no file_name",
                 id="no_file_name"),
    pytest.param(lambda c: c["categories"][1].update(id=1), "the same id 1",
                 id="category_ids_equal"),
    pytest.param(lambda c: c["categories"][1].update(name="cat"), "the same name 'cat'",
                 id="category_names_equal"),
    pytest.param(lambda c: c["categories"][1].pop("name"), r"categories\[1\] has no name",
                 id="category_no_name"),
    pytest.param(lambda c: notes(c, image_id=7), r"image_id 7, which is none of its 2 images "
                 r"\(4 of 4", id="unknown_image"),
    pytest.param(lambda c: notes(c, category_id=7), "category_id 7, which is none of its 2 cat",
                 id="unknown_category"),
]  # fmt: skip
BOXES = [
    pytest.param(lambda c: c["annotations"][1].update(id=11), "the same id 11", id="ids_equal"),
    pytest.param(lambda c: c["annotations"][0].update(bbox=[1, 2, 3]),
                 r"annotation 11 \(image 1\) has the bbox \[1, 2, 3\].*1 of 4", id="three_numbers"),
    pytest.param(lambda c: notes(c, bbox=["1", "2", "3", "4"]), r"bbox \['1', .*4 of 4", id="text"),
    pytest.param(lambda c: notes(c, bbox=[math.nan, 0, 5, 5]), r"bbox \[nan", id="nan"),
    pytest.param(lambda c: notes(c, bbox="5 5 20 10"), "bbox '5 5 20 10'", id="one_text"),
    pytest.param(lambda c: notes(c, bbox=None, segmentation=None), "has no bbox, and no polygons",
                 id="no_bbox"),
    pytest.param(lambda c: notes(c, iscrowd="no"), "iscrowd='no'; it is 0 or 1", id="crowd_text"),
    pytest.param(lambda c: notes(c, area="large"), "the area 'large'", id="area_text"),
    pytest.param(lambda c: c["images"][0].update(height="40"), "height='40'", id="height_text"),
    pytest.param(lambda c: c["images"][0].update(height=None, file_name="x.png"),
                 "image 1 has no height and width, and there is no photo", id="no_height"),
]  # fmt: skip
EMPTY = [
    pytest.param(lambda c: notes(c, iscrowd=1), "none of its 2 images has a box to learn from "
                 r"\(4 boxes are crowds", id="all_crowds"),
    pytest.param(lambda c: notes(c, bbox=[70, 50, 9, 9]), "has a box to learn from", id="outside"),
    pytest.param(lambda c: notes(c, bbox=[5, 5, 0, 0]), "has a box to learn from", id="zero"),
    pytest.param(lambda c: notes(c, bbox=[5, 5, -5, -5]), "has a box to learn", id="negative"),
    pytest.param(lambda c: notes(c, area=0), "has a box to learn from", id="no_area"),
    pytest.param(lambda c: c["annotations"].clear(), "has 2 images, none is left: 2 have no box",
                 id="no_annotations"),
    pytest.param(lambda c: c["images"].clear() or c["annotations"].clear(),
                 "has 0 images, none is left", id="no_images"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "line"), [*FILES, *ENTRIES, *BOXES, *EMPTY])
def test_training_on_a_damaged_json(change: Any, line: str, tmp_path: Path) -> None:
    content = sound() if callable(change) else change
    if callable(change):
        change(content)
    message = raises(line, DATASETS.build, config(save(tmp_path, content)))
    assert "a.json" in message


@pytest.mark.parametrize(("change", "line"), [*FILES, *ENTRIES, *BOXES])
def test_a_damaged_json_of_mmdets_data_set_or_metric(
    change: Any, line: str, tmp_path: Path
) -> None:
    content = sound() if callable(change) else change
    if callable(change):
        change(content)
    path = save(tmp_path, content)
    loader = {"test_dataloader": {"dataset": config(path, "CocoDataset")}}
    raises(line, check_data, Config(loader), ["test_dataloader"])
    metric = {"test_evaluator": {"type": "CocoMetric", "ann_file": str(path)}}
    raises(f"ann_file of CocoMetric: .*{line}", check_data, Config(metric), ["test_dataloader"])


@pytest.mark.parametrize(("change", "line"), [*FILES, *ENTRIES])
@pytest.mark.parametrize("kind", ["recognition", "distillation", "converter"])
def test_a_damaged_json_of_the_other_tasks(
    kind: str, change: Any, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = sound() if callable(change) else change
    if callable(change):
        change(content)
    if kind == "converter":
        save(tmp_path, content, "instances_val2017.json")
        assert ov_coco.main([str(tmp_path), "--splits", "val"]) == 1
        assert capsys.readouterr().err.startswith("error: ")
    elif kind == "recognition":
        path = save(tmp_path, content)
        prefix = {"img_path": str(tmp_path)}
        raises("a.json", CocoMultiLabelDataset, ann_file=str(path), data_prefix=prefix)
    else:
        if isinstance(content, dict):
            for category in content.get("categories", ()):
                if isinstance(category, dict):
                    category["isthing"] = 1
            for note in content.get("annotations", ()):
                note.update(segments_info=[{**note, "bbox": [5, 5, 20, 10]}], file_name="1.png")
        path = save(tmp_path, content)
        prefix = {"img_path": str(tmp_path), "seg_map_path": str(tmp_path)}
        raises("a.json", PanopticRegionsDataset, ann_file=str(path), data_prefix=prefix)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda c: notes(c, area=None), id="area"),
        pytest.param(lambda c: notes(c, iscrowd=None), id="iscrowd"),
        pytest.param(lambda c: notes(c, bbox=None), id="bbox"),
        pytest.param(lambda c: notes(c, id=None), id="ids"),
        pytest.param(lambda c: [i.pop("height") for i in c["images"]], id="height"),
        pytest.param(lambda c: notes(c, area=math.nan), id="area_nan"),
    ],
)
def test_what_can_be_computed_is_filled_in(change: Change, tmp_path: Path) -> None:
    before = DATASETS.build(config(save(tmp_path, sound(), "sound.json")))
    content = sound()
    change(content)
    after = DATASETS.build(config(save(tmp_path, content)))
    for place in range(2):
        assert after.get_data_info(place) == before.get_data_info(place)


def test_the_metric_completes_its_json_as_the_data_set_does(tmp_path: Path) -> None:
    content = sound()
    notes(content, area=None, iscrowd=None)
    path = save(tmp_path, content)
    run = runner(tmp_path, config(path, test_mode=True), scope="mmdet",
                 evaluator={"type": "CocoMetric", "ann_file": str(path)})  # fmt: skip
    loop = run.build_test_loop(run._test_loop)
    run._test_loop = loop
    run.call_hook("before_run")
    api = loop.evaluator.metrics[0]._coco_api
    assert {note["area"] for note in api.anns.values()} == {200.0}
    assert {note["iscrowd"] for note in api.anns.values()} == {0}


def test_a_metric_learns_sizes_from_the_photos_as_the_data_set_does(tmp_path: Path) -> None:
    content = sound()
    for image in content["images"]:
        del image["height"], image["width"]
    path = save(tmp_path, content)
    dataset, metric = config(path, test_mode=True), {"type": "CocoMetric", "ann_file": str(path)}
    loops = {"test_dataloader": {"dataset": dataset}, "test_evaluator": metric}
    check_data(Config({**loops, "default_scope": "mmdet"}), ["test_dataloader"])
    run = runner(tmp_path, dataset, scope="mmdet", evaluator=metric)
    loop = run._test_loop = run.build_test_loop(run._test_loop)
    run.call_hook("before_run")
    before = {image["id"]: image for image in sound()["images"]}
    for number, image in loop.evaluator.metrics[0]._coco_api.imgs.items():
        assert {key: image[key] for key in ("height", "width")} == {
            key: before[number][key] for key in ("height", "width")
        }


def test_what_the_reader_of_a_metric_does_not_take(tmp_path: Path) -> None:
    content = sound()
    notes(content, id=None)
    path = save(tmp_path, content)
    metric = Config({"test_evaluator": {"type": "CocoMetric", "ann_file": str(path)}})
    raises("a.json: the annotations have no id; number them", check_data, metric,
           ["test_dataloader"])  # fmt: skip
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(sound()).encode())
    raises("a.json begins with a byte order mark", check_data, metric, ["test_dataloader"])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        pytest.param(lambda c: (c["images"].pop(), notes(c, image_id=1)),
                     r"lack 1 of the 2 images of OVCocoDataset .*: 2; the evaluator must",
                     id="other_images"),
        pytest.param(lambda c: c["categories"][1].update(name="puma"),
                     "lack 1 of the 2 classes of OVCocoDataset .*: dog", id="other_classes"),
    ],
)  # fmt: skip
def test_an_evaluators_json_that_is_not_the_data_sets(
    change: Change, line: str, tmp_path: Path
) -> None:
    content = sound()
    change(content)
    metric = {"type": "CocoMetric", "ann_file": str(save(tmp_path, content, "b.json"))}
    dataset = config(save(tmp_path, sound()), test_mode=True)
    raises(line, runner(tmp_path, dataset, scope="mmdet", evaluator=metric).test)


@pytest.mark.parametrize("kind", ["OVCocoDataset", "CocoDataset"])
@pytest.mark.parametrize("load", ["LoadImageFromFile", "LoadReadableImage"])
def test_a_photo_of_another_size_than_its_boxes(kind: str, load: str, tmp_path: Path) -> None:
    from tests.faults.test_data import turned

    path = save(tmp_path, sound())
    turned(tmp_path / "1.png", size=(60, 40))
    dataset = config(path, kind)
    dataset["pipeline"][0]["type"] = load
    line = "1.png has 40 x 60 pixels .* its annotation has 60 x 40: its EXIF tag .*orientation 6"
    raises(line, runner(tmp_path, dataset, train=True, scope="mmdet").train)


def test_photos_of_boxes_that_are_not_there(tmp_path: Path) -> None:
    path = save(tmp_path, sound())
    (tmp_path / "2.png").unlink()
    for kind in ("OVCocoDataset", "CocoDataset"):
        line = f"{kind}: 1 of 2 photos are not there; the first is .*2.png', in .*a.json"
        raises(line, runner(tmp_path, config(path, kind), train=True, scope="mmdet").train)


def test_nothing_is_left_of_mmdets_data_set(tmp_path: Path) -> None:
    content = sound()
    dataset = config(save(tmp_path, content), "CocoDataset")
    dataset["filter_cfg"] = {"filter_empty_gt": True, "min_size": 64}
    loader = Config({"train_dataloader": {"dataset": dataset}})
    raises(
        "CocoDataset: .*a.json' has 2 images, none is left: 0 have no box .*, 2 have a side "
        "below 64 px",
        check_data,
        loader,
        ["train_dataloader"],
    )
    notes(content, iscrowd=1)
    dataset = config(save(tmp_path, content), "CocoDataset")
    raises("has a box to learn from", runner(tmp_path, dataset, train=True, scope="mmdet").train)


def panoptic(folder: Path, **segment: Any) -> dict[str, Any]:
    """Options of a panoptic data set; ``segment`` changes its only segment, None takes away."""
    content = sound()
    content["categories"] = [{**c, "isthing": 1} for c in content["categories"]]
    values = {"id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 0, **segment}
    kept = {key: value for key, value in values.items() if value is not None}
    content["annotations"] = [{"image_id": 1, "file_name": "1.png", "segments_info": [kept]}]
    prefix = {"img_path": str(folder), "seg_map_path": str(folder)}
    return {"ann_file": str(save(folder, content)), "data_prefix": prefix}


@pytest.mark.parametrize(
    ("segment", "line"),
    [
        pytest.param({"bbox": [0, 0, 9]}, r"segment 1 has the bbox \[0, 0, 9\]", id="three"),
        pytest.param({"bbox": ["0", "0", "9", "9"]}, "which is not x, y, width", id="text"),
        pytest.param({"bbox": [math.nan, 0, 9, 9]}, "four finite numbers", id="nan"),
        pytest.param({"bbox": None}, "has no 'bbox'; it must be COCO's json", id="no_bbox"),
        pytest.param({"category_id": 9}, "category_id 9 is none of the 2", id="category"),
    ],
)
def test_segments_of_a_panoptic_json(segment: Content, line: str, tmp_path: Path) -> None:
    raises(line, PanopticRegionsDataset, **panoptic(tmp_path, **segment))


@pytest.mark.parametrize("key", ["image_id", "category_id"])
def test_ids_that_are_lists_in_recognition(key: str, tmp_path: Path) -> None:
    content = sound()
    notes(content, **{key: [1]})
    prefix = {"img_path": str(tmp_path)}
    path = save(tmp_path, content)
    raises("a.json", CocoMultiLabelDataset, ann_file=str(path), data_prefix=prefix)
    raises(f"{key} .1., which is none", DATASETS.build, config(path))


def test_photos_of_recognition_and_panoptic_data_that_are_not_there(tmp_path: Path) -> None:
    options = panoptic(tmp_path)
    (tmp_path / "1.png").unlink()
    line = "1 of 1 photos are not there; the first is .*1.png', in .*a.json"
    raises(line, _look, PanopticRegionsDataset(**options))
    path = save(tmp_path, sound())
    (tmp_path / "2.png").unlink()
    data = CocoMultiLabelDataset(ann_file=str(path), data_prefix={"img_path": str(tmp_path)})
    raises("1 of 2 photos are not there; the first is .*2.png', in .*a.json", _look, data)


def test_images_of_a_distillation_that_are_not_there_or_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    place = "mmclipdis.datasets.distillation.images.print_log"
    monkeypatch.setattr(place, lambda text, **_: said.append(text))
    path = save(tmp_path, sound())
    (tmp_path / "2.png").unlink()
    DistillImageDataset(ann_file=str(path), data_prefix={"img_path": str(tmp_path)})
    assert "1 of 2 images that" in said[0] and "2.png" in said[0]
    (tmp_path / "b.gif").write_bytes(b"GIF89a")
    DistillImageDataset(data_prefix={"img_path": str(tmp_path)})
    assert "1 pictures below" in said[1] and "1 .gif" in said[1]


def _look(dataset: Any) -> None:
    """What the hook does before a test."""
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset), evaluator=None)
    loops = {"_train_loop": None, "_val_loop": None, "_test_loop": loop}
    DataCheckHook().before_run(SimpleNamespace(**loops, hooks=[]))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        pytest.param(lambda c: [n.update(category_id="1") for n in c["annotations"]],
                     "category_id '1',? (which )?is none of", id="texts_as_ids"),
        pytest.param(lambda c: c["categories"].append({"id": "x", "name": "y", "isthing": 1}),
                     "ids of categories are numbers and some are texts", id="ids_of_two_kinds"),
        pytest.param(lambda c: c["annotations"].clear(), "none is left|no image is left|has no ann",
                     id="no_annotations"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["detection", "recognition", "panoptic"])
def test_ids_of_another_kind_and_no_annotations(
    kind: str, change: Change, line: str, tmp_path: Path
) -> None:
    content = sound()
    change(content)
    if kind == "panoptic":
        for category in content["categories"]:
            category["isthing"] = 1
        for note in content["annotations"]:
            note.update(segments_info=[dict(note)], file_name="1.png")
    path = save(tmp_path, content)
    if kind == "detection":
        raises(line, lambda: len(DATASETS.build(config(path))))
    elif kind == "recognition":
        prefix = {"img_path": str(tmp_path)}
        raises(line, CocoMultiLabelDataset, ann_file=str(path), data_prefix=prefix)
    else:
        prefix = {"img_path": str(tmp_path), "seg_map_path": str(tmp_path)}
        raises(line, PanopticRegionsDataset, ann_file=str(path), data_prefix=prefix)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda c: c["annotations"][0].update(bbox=[0, 0, 2**63, 9]), id="2**63"),
        pytest.param(
            lambda c: notes(c, segmentation={"size": [40, 60], "counts": ["1", "2"]}, area=None),
            id="runs_of_texts",
        ),
    ],
)
def test_odd_numbers_end_in_no_traceback(change: Change, tmp_path: Path) -> None:
    content = sound()
    change(content)
    assert len(DATASETS.build(config(save(tmp_path, content)))) == 2


@pytest.mark.parametrize("bad", [math.inf, math.nan, 10**400])
def test_sizes_and_boxes_without_end(bad: float, tmp_path: Path) -> None:
    content = sound()
    content["images"][0]["height"] = bad
    raises("height=.* number of pixels", DATASETS.build, config(save(tmp_path, content)))
    content = sound()
    content["annotations"][0]["bbox"] = [0, 0, bad, 9]
    raises("four finite numbers", DATASETS.build, config(save(tmp_path, content)))
