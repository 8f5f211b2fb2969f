"""Faults of data that people bring along: maps, jsons, lists; and of reports by class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.evaluation.metrics import CocoMetric, OVCocoMetric
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS as SEGMENTATION
from PIL import Image

from mmclipdis.datasets import LoadReadableAnnotations, MultiLabelListDataset
from mmclipdis.engine.data_check import check_listed
from mmclipdis.engine.metric_check import check_evaluator
from mmclipdis.evaluation import DetClassReport, SegClassReport
from tests.faults.endings import raises
from tests.faults.tiny import masks, runner

BLUE, RED = [0, 0, 255], [255, 0, 0]

#: Pixels of a map, what is said of it to the loader, and the line.
MAPS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "coloured": ([[BLUE, RED]], {}, r"coloured picture; .* palette=\[\[red, green, blue\]"),
    "another colour": ([[BLUE, RED]], {"palette": [RED]}, r"colours \[0, 0, 255\], .* of the 1 of"),
    "labels from 1": ([[1, 2]], {}, "holds 2 .*check the classes and reduce_zero_label"),
    "another unlabelled": ([[0, 9]], {"unlabelled": 8}, "holds 9 .* which are no class"),
    "all unlabelled": ([[8, 8]], {"unlabelled": 8}, "every pixel of all 1 label maps is 255"),
}


@pytest.mark.parametrize("case", MAPS)
def test_a_label_map(case: str, tmp_path: Path) -> None:
    labels, options, line = MAPS[case]
    dataset = masks(tmp_path, [labels])
    dataset["pipeline"] = [*dataset["pipeline"]]
    dataset["pipeline"][1] = {"type": "LoadReadableAnnotations", **options}
    raises(line, runner(tmp_path, dataset).test)


def test_a_label_map_in_jpeg(tmp_path: Path) -> None:
    dataset = masks(tmp_path)
    Image.open(tmp_path / "ann/0.png").save(tmp_path / "ann/0.jpg")
    dataset |= {"seg_map_suffix": ".jpg"}
    dataset["pipeline"] = [{"type": "LoadImageFromFile"}, {"type": "LoadReadableAnnotations"}]
    raises("is a JPEG, which changes the labels .* as PNG", runner(tmp_path, dataset).test)


def folders(tmp_path: Path, **options: Any) -> dict[str, Any]:
    return {**masks(tmp_path), "type": "FolderSegDataset", **options}


def test_a_folder_without_classes_pictures_or_maps(tmp_path: Path) -> None:
    init_default_scope("mmseg")
    build = SEGMENTATION.build
    raises("needs the names of the classes", build, folders(tmp_path, metainfo={}))
    raises("1 of 1 label maps are not there; the first is .*0_mask.png", build,
           folders(tmp_path, seg_map_suffix="_mask.png"))  # fmt: skip
    raises("no file in .* ends with '.tif'", build, folders(tmp_path, img_suffix=".tif"))
    raises("no image folder .*none", build, folders(tmp_path, data_prefix={"img_path": "none"}))
    (tmp_path / "img/0.JPG").write_bytes((tmp_path / "img/0.jpg").read_bytes())
    raises("0.JPG' and .*0.jpg' have one name, and so one label map, '0.png'", build,
           folders(tmp_path))  # fmt: skip
    (tmp_path / "img/0.JPG").unlink()
    dataset = folders(tmp_path)
    (tmp_path / "img/0.jpg").rename(tmp_path / "img/notes.txt")
    raises("img' has no photo", build, dataset)
    (tmp_path / "img/notes.txt").unlink()
    raises("no file in .*img'; set data_prefix.img_path", build, dataset)


def test_a_photo_of_a_list_of_labels_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a.jpg, sky, sea\n")
    found = MultiLabelListDataset("a.csv", data_root=str(tmp_path))
    raises("1 of 1 photos are not there; the first is .*a.jpg', in .*a.csv", check_listed, found,
           [found.get_data_info(0)])  # fmt: skip


LOADERS: dict[str, tuple[dict[str, Any], str]] = {
    "a text": ({"unlabelled": "11"}, "unlabelled='11' of LoadReadableAnnotations: it is a label"),
    "a truth": ({"unlabelled": [True]}, "it is a label of the files, such as 11"),
    "below 0": ({"unlabelled": -1}, "unlabelled=-1"),
    "names": ({"palette": ["red"]}, r"palette .*: it is \[\[red, green, blue\]"),
    "floats": ({"palette": [[0.1, 0.2, 0.3]]}, "0 to 255, one colour a class"),
    "of several lengths": ({"palette": [[1, 2, 3], [4]]}, "one colour a class"),
    "twice": ({"palette": [RED, RED]}, "one colour for two classes"),
}


@pytest.mark.parametrize("case", LOADERS)
def test_an_option_of_the_loader(case: str) -> None:
    options, line = LOADERS[case]
    raises(line, LoadReadableAnnotations, **options)


LISTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "empty": ("\n\n", {}, "lists no photo; write one a line"),
    "no labels": ("a.jpg\nb.jpg\n", {}, "names no class behind its photos"),
    "no head": ("a.jpg,0,1\nb.jpg,1,1\n", {}, "a table without head: .* called 0, 1"),
    "no photo": (",sky\n", {}, "line 1 names no photo"),
    "a mistyped name": ("a.jpg,sky\nb.jpg,skey\n", {"metainfo": {"classes": ("sky",)}},
                        "line 2: 'skey' is none of the 1 names .*did you mean 'sky'"),
    "a cell": ("file,sky,sea\na.jpg,1,x\nb.jpg,1,1\n", {}, "line 2: the cell 'x' of 'a.jpg'"),
    "too few cells": ("file,sky,sea\na.jpg,1\nb.jpg,0,0\n", {}, "line 2: 1 cells for the 2"),
    "a photo twice": ("file,sky\na.jpg,1\na.jpg,0\n", {}, "line 3: 'a.jpg' has a line already, 2"),
    "a class twice": ("file,sky,sky\na.jpg,1,0\n", {}, "the head of .* has 'sky' more than once"),
    "outside": ("../../a.jpg,sky\n", {}, "outside"),
    "no list of names": ("a.jpg,sky\n", {"metainfo": {"classes": "sky"}}, "is the text 'sky'"),
}  # fmt: skip


@pytest.mark.parametrize("case", LISTS)
def test_a_list_of_labels(case: str, tmp_path: Path) -> None:
    text, options, line = LISTS[case]
    (tmp_path / "a.csv").write_text(text)
    raises(line, MultiLabelListDataset, "a.csv", data_root=str(tmp_path), **options)


def test_a_list_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    raises("no list .*; set ann_file", MultiLabelListDataset, "b.csv", data_root=str(tmp_path))
    (tmp_path / "b.csv").write_bytes(b"a.jpg,caf\xe9\n")
    raises("no UTF-8 text", MultiLabelListDataset, "b.csv", data_root=str(tmp_path))
    raises("no folder .*; set data_root", MultiLabelListDataset, "b.csv",
           data_root=str(tmp_path), data_prefix={"img_path": "x"})  # fmt: skip


def exported() -> dict[str, Any]:
    """What Roboflow exports: ids from 0, a root category that no box has, no ``iscrowd``."""
    return {
        "images": [{"id": 0, "file_name": "0.jpg", "height": 40, "width": 40}],
        "categories": [
            {"id": 0, "name": "pets", "supercategory": "none"},
            {"id": 1, "name": "cat", "supercategory": "pets"},
        ],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 1, "bbox": [1, 1, 20, 20]}],
    }


META = {"classes": ("cat",), "novel_classes": ()}


def build(folder: Path, content: Any, **metainfo: Any) -> Any:
    init_default_scope("mmdet")
    (folder / "a.json").write_text(json.dumps(content))
    return DATASETS.build(
        {
            "type": "OVCocoDataset",
            "ann_file": str(folder / "a.json"),
            "metainfo": {**META, **metainfo},
            "test_mode": True,
        }
    )


def hit(metric: Any, meta: Any = None) -> None:
    """Give a metric the one box of :func:`exported`."""
    metric.dataset_meta = meta or {"classes": ("cat",)}
    found = {
        "bboxes": torch.tensor([[1.0, 1, 21, 21]]),
        "labels": torch.tensor([0]),
        "scores": torch.ones(1),
    }
    metric.process({}, [{"img_id": 0, "ori_shape": (40, 40), "pred_instances": found}])


def test_an_export_of_roboflow_is_read_and_its_box_0_is_found(tmp_path: Path) -> None:
    dataset = build(tmp_path, exported())
    assert dataset.metainfo["base_classes"] == ("cat",)
    assert [box["bbox_label"] for box in dataset.get_data_info(0)["instances"]] == [0]
    metric = CocoMetric(str(tmp_path / "a.json"), metric="bbox")
    check_evaluator(type("Evaluator", (), {"metrics": [metric]}), [dataset])
    hit(metric)
    assert metric.evaluate(1)["coco/bbox_mAP"] == 1.0  # pycocotools alone says 0
    report = DetClassReport(str(tmp_path / "a.json"), str(tmp_path / "c.csv"))
    hit(report)
    report.evaluate(1)
    assert (tmp_path / "c.csv").read_text().splitlines()[1].startswith("cat,1,100.0000")


@pytest.mark.parametrize(("novel", "numbers"), [((), (1.0, -1)), (("cat",), (-1, 1.0))])
def test_a_group_without_classes_has_no_number(
    novel: tuple[str, ...], numbers: tuple[float, float], tmp_path: Path
) -> None:
    dataset = build(tmp_path, exported(), novel_classes=novel)
    metric = OVCocoMetric(str(tmp_path / "a.json"), metric="bbox")
    metric.dataset_meta = dataset.metainfo
    check_evaluator(type("Evaluator", (), {"metrics": [metric]}), [dataset])
    hit(metric, dataset.metainfo)
    found = metric.evaluate(1)
    groups = (found["coco/base_ap"], found["coco/novel_ap"])
    assert groups == pytest.approx(numbers)  # the metric alone: 1 and 1


def test_categories_whose_ids_do_not_ascend(tmp_path: Path) -> None:
    content = exported()
    content["categories"] = [{"id": 7, "name": "dog"}, content["categories"][1]]
    dataset = build(tmp_path, content, classes=("dog", "cat"))
    metric = OVCocoMetric(str(tmp_path / "a.json"), metric="bbox")
    metric.dataset_meta = dataset.metainfo
    evaluator = type("Evaluator", (), {"metrics": [metric]})
    raises(r"ids of the categories do not ascend \(7, 1\).*sort the categories",
           check_evaluator, evaluator, [dataset])  # fmt: skip


JSONS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "of labelme": ({"version": "5", "shapes": [], "imagePath": "a.jpg"}, {}, "it is of labelme"),
    "of VIA": ({"_via_settings": {}, "_via_img_metadata": {}}, {}, "it is a project of VIA"),
    "a list": ([], {}, "it holds a list"),
    "other names": (exported(), {"classes": ("Cat",)}, "1 unknown categories: 'cat'"),
    "a class too many": (exported(), {"classes": ("cat", "dog")}, "lacks 1 of the categories: 'd"),
    "novel and base": (exported(), {"base_classes": ("cat",), "novel_classes": ("cat",)},
                       "'cat' must be once in metainfo.classes, and in one of"),
    "neither": (exported(), {"novel_classes": (), "base_classes": ()}, "and in one of"),
}  # fmt: skip


def test_a_folder_under_mmsegs_name(tmp_path: Path) -> None:
    init_default_scope("mmdet")
    raises(r"takes the folder of the photos as data_prefix=dict\(img=...\).*'img_path'",
           DATASETS.build, {"type": "OVCocoDataset", "ann_file": "a.json",
                            "data_prefix": {"img_path": "train/"}})  # fmt: skip


@pytest.mark.parametrize("case", JSONS)
def test_a_json_of_boxes(case: str, tmp_path: Path) -> None:
    content, metainfo, line = JSONS[case]
    raises(line, build, tmp_path, content, **metainfo)


FILES: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "nothing to write: set per_class='FILE.csv'"),
    "a table in a picture": ({"per_class": "a.png"}, "per_class='a.png': end it with .csv"),
    "no picture": ({"confusion_matrix": "a.xls"}, "cannot write 'a.xls': end it with one of"),
    "no background": ({"per_class": "a.csv", "background_from": 0}, "number of foreground classes"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_report_of_segmentation(case: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    options, line = FILES[case]
    raises(line, SegClassReport, **options)


def test_a_file_where_a_folder_of_a_report_should_be(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    raises("a file stands where a folder", SegClassReport, str(tmp_path / "a/b.csv"))


def test_samples_that_a_report_of_segmentation_cannot_count(tmp_path: Path) -> None:
    report = SegClassReport(str(tmp_path / "a.csv"))
    report.dataset_meta = {"classes": ("sky", "car")}
    labels = {"data": torch.tensor([[[0, 1]]])}
    sample = {"img_path": "p.jpg", "seg_map_path": "p.png", "pred_sem_seg": labels}
    raises(
        "p.jpg has no gt_sem_seg: the test pipeline needs .*LoadAnnotations",
        report.process,
        {},
        [sample],
    )
    wrong = {"data": torch.tensor([[[0, 7]]])}
    raises(r"label map p.png holds the values 7 \(1 px\)", report.process, {},
           [{**sample, "gt_sem_seg": wrong}])  # fmt: skip
    other = {"data": torch.zeros(1, 2, 2, dtype=torch.long)}
    raises("p.png", report.process, {}, [{**sample, "gt_sem_seg": other}])


DETECTION: dict[str, tuple[dict[str, Any], str]] = {
    "a threshold": ({"score_thr": 30}, r"score_thr of DetClassReport must be in \[0, 1\], got 30"),
    "a text": ({"iou_thr": "0.5"}, "iou_thr of DetClassReport must be in"),
    "nothing": ({"per_class": None}, "nothing to write"),
    "no file": ({"ann_file": "none.json"}, "no annotation file 'none.json'; set ann_file"),
}


@pytest.mark.parametrize("case", DETECTION)
def test_a_report_of_detection(case: str, tmp_path: Path) -> None:
    changes, line = DETECTION[case]
    (tmp_path / "a.json").write_text(json.dumps(exported()))
    options = {"ann_file": str(tmp_path / "a.json"), "per_class": str(tmp_path / "c.csv")}
    raises(line, DetClassReport, **{**options, **changes})


def test_a_report_with_the_json_of_other_data(tmp_path: Path) -> None:
    content = exported()
    (tmp_path / "a.json").write_text(json.dumps(content))
    report = DetClassReport(str(tmp_path / "a.json"), str(tmp_path / "c.csv"))
    hit(report)
    report.dataset_meta = {"classes": ("cat", "dog")}
    raises("lacks 1 of the 2 classes .*'dog'; set ann_file of DetClassReport", report.evaluate, 1)
    hit(report)
    report.content["images"][0]["id"] = report.content["annotations"][0]["image_id"] = 5
    raises(r"lacks 1 of the 1 images .*\(id 0\)", report.evaluate, 1)
