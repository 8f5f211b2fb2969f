"""Results of every class: numbers of a naive count, in CSV, pictures and the visualizer."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

import mmdet
import numpy as np
import pytest
import torch
from mmdet.evaluation.metrics import CocoMetric, OVCocoMetric
from mmengine.visualization import Visualizer
from mmseg.evaluation.metrics import IoUMetric
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmclipdis.evaluation import DetClassReport, SegClassReport
from mmclipdis.evaluation.box_confusion import Boxes, box_pairs
from mmclipdis.evaluation.class_files import matrix_text, scalars, table_text
from mmclipdis.evaluation.confusion_figure import confusion_picture, most_confused, row_shares
from mmclipdis.evaluation.seg_class_report import class_scores
from tests.datasets.detection.files import lvis, save
from tests.ranks import run_ranks

CLASSES = ("sky", 'a "b", c', "dog")
GROUPS = {"base": ("sky", "dog"), "novel": ('a "b", c',), "things": ("dog",)}


def maps(count: int, classes: int, seed: int = 0, unlabelled: int = 255) -> list[dict[str, Any]]:
    """Random predictions, some of no class, and labels, some ignored."""
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        label = rng.integers(0, classes, (1, 5, 6))
        predicted = rng.integers(0, classes, (1, 5, 6))
        label[rng.random(label.shape) < 0.2] = unlabelled
        predicted[rng.random(label.shape) < 0.1] = 255 if classes <= 255 else 65535
        samples.append(
            {
                "gt_sem_seg": {"data": torch.from_numpy(label)},
                "pred_sem_seg": {"data": torch.from_numpy(predicted)},
            }
        )
    return samples


def evaluate(metric: Any, samples: list[dict[str, Any]], **meta: Any) -> dict[str, float]:
    metric.dataset_meta = meta
    for item in samples:
        metric.process({}, [item])
    return metric.evaluate(len(samples))


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def counts_of(path: Path) -> np.ndarray:
    with open(path, newline="", encoding="utf-8") as file:
        return np.array([row[1:] for row in csv.reader(file)][1:], dtype=np.int64)


def naive_matrix(samples: list[dict[str, Any]], classes: int) -> np.ndarray:
    matrix = np.zeros((classes, classes + 1), np.int64)
    for one in samples:
        labels, predictions = one["gt_sem_seg"]["data"], one["pred_sem_seg"]["data"]
        for label, predicted in zip(labels.flatten().tolist(), predictions.flatten().tolist()):
            if label < classes:
                matrix[label, min(predicted, classes)] += 1
    return matrix


def test_the_matrix_of_segmentation_is_that_of_a_naive_count(tmp_path: Path) -> None:
    table, matrix = tmp_path / "new/classes.csv", tmp_path / "matrix.csv"
    samples = maps(4, 3)
    report = SegClassReport(str(table), [str(matrix), str(tmp_path / "matrix.png")])
    assert evaluate(report, samples, classes=CLASSES, groups=GROUPS) == {}
    expected = naive_matrix(samples, 3)
    assert np.array_equal(counts_of(matrix), expected) and expected[:, 3].any()
    rows = rows_of(table)
    assert [row["class"] for row in rows] == list(CLASSES)
    assert [row["groups"] for row in rows] == ["base", "novel", "base things"]
    assert [int(row["pixels"]) for row in rows] == expected.sum(1).tolist()
    hit = expected[1, 1]
    union = expected[1].sum() + expected[:, 1].sum() - hit
    assert float(rows[1]["IoU"]) == pytest.approx(100 * hit / union, abs=1e-4)
    assert Image.open(tmp_path / "matrix.png").size[0] > 300
    header = matrix.read_text().splitlines()[0]
    assert header == 'labelled \\ predicted,sky,"a ""b"", c",dog,(no class)'


def test_the_columns_are_those_of_mmsegs_table() -> None:
    samples = maps(5, 3)
    for one in samples:  # mmseg knows no prediction without class
        one["pred_sem_seg"]["data"].clamp_(max=2)
    areas = [
        IoUMetric.intersect_and_union(
            one["pred_sem_seg"]["data"][0], one["gt_sem_seg"]["data"][0], 3, 255
        )
        for one in samples
    ]
    totals = [sum(part) for part in zip(*areas)]
    theirs = IoUMetric.total_area_to_metrics(*totals, ["mIoU", "mFscore"])
    ours = class_scores(naive_matrix(samples, 3))
    for name, other in (("IoU", "IoU"), ("Acc", "Acc"), ("Precision", "Precision"),
                        ("F1", "Fscore")):  # fmt: skip
        np.testing.assert_allclose(ours[name], 100 * theirs[other], rtol=1e-6)


def test_847_classes_take_little_memory_an_image_and_a_readable_picture(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(847)]
    samples = maps(3, 847, unlabelled=65535)
    report = SegClassReport(
        confusion_matrix=[str(tmp_path / "m.csv"), str(tmp_path / "m.png")], ignore_index=65535
    )
    report.dataset_meta = {"classes": names}
    report.process({}, samples)
    assert max(sum(part.nbytes for part in kept) for kept in report.results) < 1000
    report.evaluate(3)
    assert np.array_equal(counts_of(tmp_path / "m.csv"), naive_matrix(samples, 847))
    width, height = Image.open(tmp_path / "m.png").size
    assert 848 < height < 2000 and 848 < width < 2600


def test_a_background_of_several_names_is_one_class(tmp_path: Path) -> None:
    report = SegClassReport(str(tmp_path / "c.csv"), background_from=2)
    label, predicted = torch.tensor([[[0, 2, 2]]]), torch.tensor([[[0, 3, 1]]])
    sample = {"gt_sem_seg": {"data": label}, "pred_sem_seg": {"data": predicted}}
    evaluate(report, [sample], classes=("a", "b", "wall", "sky"))
    rows = rows_of(tmp_path / "c.csv")
    assert [row["class"] for row in rows] == ["a", "b", "background"]
    assert [row["IoU"] for row in rows] == ["100.0000", "0.0000", "50.0000"]


def test_cells_without_number_are_empty_and_none_are_scalars() -> None:
    columns = {"group": ["base", ""], "n": [1, 2], "IoU": np.array([1 / 3, np.nan])}
    assert table_text(columns, ["a,b", "ü"]) == 'class,group,n,IoU\n"a,b",base,1,0.3333\nü,,2,\n'
    assert scalars(columns, ["a,b", "ü"]) == {"IoU/a,b": pytest.approx(1 / 3)}
    assert matrix_text(np.array([[1, 2]]), ["a"], ["a", "b"]).splitlines()[1] == "a,1,2"


def test_names_are_no_formulas_of_a_spreadsheet() -> None:
    names = ["=1+2", "@x", "-cmd", "a=b", "-1"]
    text = table_text({"n": np.array([-1.5] * 5)}, names)
    cells = [line.split(",") for line in text.splitlines()[1:]]
    assert [name for name, _ in cells] == ["'=1+2", "'@x", "'-cmd", "a=b", "-1"]
    assert {number for _, number in cells} == {"-1.5000"}
    assert matrix_text(np.array([[1]]), ["=a"], ["=a"]).splitlines()[1] == "'=a,1"


def test_two_results_in_one_file_and_a_folder_are_refused_at_once(tmp_path: Path) -> None:
    one, folder = str(tmp_path / "a.csv"), tmp_path / "b.csv"
    folder.mkdir()
    with pytest.raises(ValueError, match="two results would be written to .*a.csv"):
        SegClassReport(one, one)
    with pytest.raises(ValueError, match="two results"):
        SegClassReport(confusion_matrix=[one, one])
    with pytest.raises(IsADirectoryError, match="is a folder; name a file in it"):
        SegClassReport(str(folder))


def _report(rank: int, folder: str, count: int, world: int = 2) -> None:
    """Both reports, of the samples that this rank has: 0, 2, 4 of rank 0 as samplers deal them."""
    where = f"{folder}/{world}"
    boxes = detections()[1]
    for kind, samples, meta in (("seg", maps(6, 3), {"classes": CLASSES}), ("det", boxes, META)):
        files = (f"{where}/{kind}.csv", f"{where}/{kind}_m.csv")
        json_file = Path(folder, "a.json")
        report = SegClassReport(*files) if kind == "seg" else DetClassReport(str(json_file), *files)
        report.dataset_meta = meta
        own = [samples[i % count] for i in range(rank, -(-count // world) * world, world)]
        report.process({}, own)
        assert report.evaluate(count) == {}


@pytest.mark.parametrize("count", [6, 5], ids=["even", "one sample twice"])
def test_two_processes_write_what_one_does(tmp_path: Path, count: int) -> None:
    (tmp_path / "a.json").write_text(json.dumps(detections()[0]))
    _report(0, str(tmp_path), count, world=1)
    run_ranks(_report, 2, str(tmp_path), count)
    written = {file.name: file.read_text() for file in (tmp_path / "1").iterdir()}
    assert len(written) == 4
    assert written == {file.name: file.read_text() for file in (tmp_path / "2").iterdir()}


def test_shares_and_confusions_leave_the_diagonal_and_empty_rows_out() -> None:
    matrix = np.array([[8, 2, 0], [0, 0, 0], [5, 0, 5]])
    shares = row_shares(matrix)
    assert shares[0].tolist() == [80, 20, 0] and np.isnan(shares[1]).all()
    names = ["a", "b", "c"]
    assert most_confused(matrix, names, names, 5) == [("c", "a", 50.0), ("a", "b", 20.0)]
    assert most_confused(np.diag([1, 2, 3]), names, names, 5) == []


def test_pictures_show_what_is_confused() -> None:
    matrix = np.diag([9] * 4)
    plain = confusion_picture(matrix, list("abcd"), list("abcd"), "t")
    matrix[0, 3] = 9
    other = confusion_picture(matrix, list("abcd"), list("abcd"), "t")
    assert plain.dtype == np.uint8 and plain.shape[2] == 3
    assert plain.shape != other.shape or not np.array_equal(plain, other)


def boxes_of(rng: np.random.Generator, count: int, classes: int) -> Boxes:
    corners = rng.uniform(0, 40, (count, 4))
    corners[:, 2:] = corners[:, :2] + rng.uniform(5, 30, (count, 2))
    return Boxes(corners, rng.integers(0, classes, count), np.zeros(count, bool))


def mmdets_tool() -> Any:
    path = Path(mmdet.__path__[0]) / ".mim/tools/analysis_tools/confusion_matrix.py"
    spec = importlib.util.spec_from_file_location("mmdet_confusion_matrix", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pairs_of_boxes_are_those_of_mmdets_tool() -> None:
    tool, rng = mmdets_tool(), np.random.default_rng(1)
    ours, theirs = np.zeros((4, 4)), np.zeros((4, 4))
    for _ in range(30):
        found, labelled = boxes_of(rng, 6, 3), boxes_of(rng, 5, 3)
        found.corners[:3] = labelled.corners[:3] + rng.uniform(-2, 2, (3, 4))
        scores = torch.from_numpy(rng.random(6))
        result = {
            "labels": torch.from_numpy(found.labels),
            "bboxes": torch.from_numpy(found.corners),
            "scores": scores,
        }
        gts = [
            {"bbox": box, "bbox_label": label}
            for box, label in zip(labelled.corners.tolist(), labelled.labels.tolist())
        ]
        tool.analyze_per_img_dets(theirs, gts, result, 0.3, 0.5)
        kept = scores.numpy() >= 0.3
        predicted = Boxes(found.corners[kept], found.labels[kept], found.crowd[kept])
        pairs, _ = box_pairs(predicted, labelled, 3, 0.5)
        np.add.at(ours, (pairs[:, 0], pairs[:, 1]), 1)
    assert np.array_equal(ours, theirs) and (ours[:3, :3].sum() > 20) and ours[3, :3].all()


def test_crowds_and_classes_that_nobody_looked_for_raise_no_alarm() -> None:
    crowd = Boxes(np.array([[0.0, 0, 100, 100]]), np.array([1]), np.array([True]))
    found = Boxes(np.array([[10.0, 10, 20, 20]] * 2), np.array([1, 0]), np.zeros(2, bool))
    pairs, hits = box_pairs(found, crowd, 2, 0.5)
    assert pairs.tolist() == [[2, 0]] and len(hits) == 0  # the other class is an alarm
    assert box_pairs(found, crowd, 2, 0.5, judged={1})[0].tolist() == []


def detections(seed: int = 3) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A json of 6 images with ids that do not count from 1, and predictions near its boxes."""
    rng = np.random.default_rng(seed)
    content: dict[str, Any] = {
        "images": [
            {"id": 10 + i, "file_name": f"{i}.jpg", "width": 80, "height": 80} for i in range(6)
        ],
        "categories": [{"id": i, "name": n} for i, n in ((7, "cat"), (9, "kite"), (30, "x,y"))],
        "annotations": [],
    }
    samples = []
    for image in content["images"]:
        labelled, found = boxes_of(rng, 4, 3), boxes_of(rng, 8, 3)
        found.corners[:4] = labelled.corners + rng.uniform(-2, 2, (4, 4))
        found.labels[:3] = labelled.labels[:3]
        for (left, top, right, bottom), label in zip(labelled.corners.tolist(), labelled.labels):
            number = len(content["annotations"])
            content["annotations"].append(
                {
                    "id": number + 1,
                    "image_id": image["id"],
                    "category_id": (7, 9, 30)[label],
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": int(number % 7 == 6),
                }
            )
        samples.append(
            {
                "img_id": image["id"],
                "ori_shape": (80, 80),
                "pred_instances": {
                    "bboxes": torch.from_numpy(found.corners),
                    "labels": torch.from_numpy(found.labels),
                    "scores": torch.from_numpy(rng.random(8)),
                },
            }
        )
    return content, samples


META = {
    "classes": ("cat", "kite", "x,y"), "base_classes": ("cat", "x,y"), "novel_classes": ("kite",)
}  # fmt: skip


def test_average_precision_is_that_of_the_metric(tmp_path: Path) -> None:
    content, samples = detections()
    (tmp_path / "a.json").write_text(json.dumps(content))
    options = {"ann_file": str(tmp_path / "a.json"), "metric": "bbox", "classwise": True}
    expected = {
        **evaluate(CocoMetric(**options), samples, **META),
        **evaluate(OVCocoMetric(**options), samples, **META),
    }
    expected = {key.removeprefix("coco/"): value for key, value in expected.items()}
    report = DetClassReport(
        str(tmp_path / "a.json"), str(tmp_path / "c.csv"), str(tmp_path / "m.csv")
    )
    assert evaluate(report, samples, **META) == {}
    rows = {row["class"]: row for row in rows_of(tmp_path / "c.csv")}
    assert [row["group"] for row in rows.values()] == ["base", "novel", "base"]
    for name, row in rows.items():
        assert float(row["AP"]) / 100 == pytest.approx(expected[f"{name}_precision"], abs=6e-4)
    assert float(rows["kite"]["AP50"]) / 100 == pytest.approx(expected["novel_ap50"], abs=1e-4)
    counted = [not n["iscrowd"] for n in content["annotations"]]
    assert sum(int(row["boxes"]) for row in rows.values()) == sum(counted)
    matrix = counts_of(tmp_path / "m.csv")
    assert matrix.shape == (4, 4) and matrix[3, 3] == 0 and np.diagonal(matrix).sum() > 5
    for place, row in enumerate(rows.values()):
        found = 1 - matrix[place, 3] / int(row["boxes"])
        assert float(row["recall"]) == pytest.approx(100 * found, abs=1e-4)


def test_no_detections_are_zeros_and_classes_without_boxes_empty(tmp_path: Path) -> None:
    content, samples = detections()
    content["annotations"] = [n for n in content["annotations"] if n["category_id"] != 30]
    (tmp_path / "a.json").write_text(json.dumps(content))
    for one in samples:
        one["pred_instances"] = {k: v[:0] for k, v in one["pred_instances"].items()}
    evaluate(DetClassReport(str(tmp_path / "a.json"), str(tmp_path / "c.csv")), samples, **META)
    rows = rows_of(tmp_path / "c.csv")
    assert [row["AP"] for row in rows] == ["0.0000", "0.0000", ""]
    assert [row["recall"] for row in rows] == ["0.0000", "0.0000", ""]


def test_a_json_of_lvis_is_scored_by_its_own_rule(tmp_path: Path) -> None:
    content = lvis()
    names = [category["name"] for category in content["categories"]]
    image = content["images"][0]
    path = save(tmp_path / "lvis.json", content)
    ids = {category["id"]: place for place, category in enumerate(content["categories"])}
    own = [note for note in content["annotations"] if note["image_id"] == image["id"]]
    boxes = torch.tensor([note["bbox"] for note in own], dtype=torch.float64)
    boxes[:, 2:] += boxes[:, :2]
    judged = {note["category_id"] for note in own} | set(image["neg_category_ids"])
    other = next(place for i, place in ids.items() if i not in judged)
    sample = {
        "img_id": image["id"],
        "pred_instances": {
            "bboxes": torch.cat([boxes, boxes.new_tensor([[0, 0, 3, 3]])]),
            "labels": torch.tensor([*(ids[note["category_id"]] for note in own), other]),
            "scores": torch.ones(len(own) + 1),
        },
    }
    report = DetClassReport(str(path), str(tmp_path / "c.csv"), str(tmp_path / "m.csv"))
    evaluate(report, [sample], classes=names)
    assert counts_of(tmp_path / "m.csv")[len(names)].sum() == 0  # nobody looked for the last
    rows = rows_of(tmp_path / "c.csv")
    assert all(row["recall"] == "" or float(row["recall"]) >= 0 for row in rows)
    assert any(float(row["AP"] or 0) > 0 for row in rows)


def test_tensorboard_gets_numbers_and_picture(tmp_path: Path) -> None:
    visualizer = Visualizer.get_instance(
        f"report-{tmp_path.name}",
        save_dir=str(tmp_path),
        vis_backends=[{"type": "TensorboardVisBackend"}],
    )
    evaluate(SegClassReport(visualize=True), maps(2, 3), classes=CLASSES)
    visualizer.close()
    (event,) = tmp_path.rglob("events.out.*")
    written = EventAccumulator(str(event.parent))
    written.Reload()
    assert "IoU/dog" in written.Tags()["scalars"]
    assert written.Tags()["images"] == ["confusion_matrix"]
