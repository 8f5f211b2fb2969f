"""``--per-class`` and ``--confusion-matrix``: what a config tests decides what is reported."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmclipdis.apis.class_report_options import report_classes
from mmclipdis.apis.run import test as run_test
from mmclipdis.apis.test_options import keep_predictions
from mmclipdis.shapes.coco import Settings, write_dataset
from tests.faults.endings import ends_in, raises
from tests.paths import ROOT


def reported(evaluator: Any, scope: str = "mmseg", **test_data: Any) -> Any:
    config = Config(
        {
            "test_evaluator": evaluator,
            "test_dataloader": {"dataset": test_data},
            "default_scope": scope,
        }
    )
    report_classes(config, "c.csv", ["m.png"])
    return config.test_evaluator


FILES = {"per_class": "c.csv", "visualize": False, "confusion_matrix": ["m.png"]}


def test_stock_metrics_of_segmentation_stay_and_share_their_ignored_label() -> None:
    stock = {"type": "IoUMetric", "ignore_index": 11}
    assert reported(stock) == [stock, {"type": "SegClassReport", "ignore_index": 11, **FILES}]


def test_the_json_of_detection_is_the_metrics_or_the_data_sets() -> None:
    stock = {"type": "CocoMetric", "ann_file": "a.json"}
    report = {"type": "DetClassReport", "ann_file": "a.json", **FILES}
    assert reported(stock, "mmdet") == [stock, report]
    found = reported({"type": "VOCMetric"}, "mmdet", ann_file="b.json", data_root="data")
    assert found[1]["ann_file"] == "data/b.json"
    raises("need a json: set test_evaluator.ann_file", reported, {"type": "VOCMetric"}, "mmdet")


def test_recognition_writes_its_own_table_and_has_no_confusions() -> None:
    config = Config({"test_evaluator": {"type": "MultiLabelMetric"}, "default_scope": "mmengine"})
    report_classes(config, "c.csv", None)
    assert config.test_evaluator.per_class_file == "c.csv"
    raises("several labels an image", report_classes, config, None, ["m.csv"])
    raises("not for the classification of regions", reported, {"type": "RegionAccuracy"})


def test_files_are_replaced_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("mine")
    config = Config({"test_evaluator": {"type": "IoUMetric"}, "default_scope": "mmseg"})
    raises("exists and is left as it is", report_classes, config, str(path), None)
    report_classes(config, str(path), None, overwrite=True)


def test_reports_of_a_config_have_no_predictions_to_keep() -> None:
    report = {"type": "SegClassReport", "per_class": "c.csv"}
    config = Config({"test_evaluator": [{"type": "IoUMetric"}, report], "default_scope": "mmseg"})
    keep_predictions(config, "out")
    assert config.test_evaluator[1] == report


@pytest.fixture
def shapes(tmp_path: Path) -> list[str]:
    write_dataset(tmp_path / "shapes", Settings(train=1, val=2, seed=3))
    return [
        *(str(ROOT / "configs/shapes/maskclip.py"), "--work-dir", str(tmp_path / "work")),
        *("--cfg-options", f"test_dataloader.dataset.data_root={tmp_path / 'shapes'}"),
    ]


def test_a_test_of_segmentation_writes_table_matrix_and_tensorboard(
    shapes: list[str], tmp_path: Path
) -> None:
    table, matrix = tmp_path / "c.csv", tmp_path / "m.csv"
    metrics = run_test(
        [*shapes, "--per-class", str(table), "--confusion-matrix", str(matrix), "--tensorboard"]
    )
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    known = [float(row["IoU"]) for row in rows if row["IoU"]]
    assert sum(known) / len(known) == pytest.approx(metrics["mIoU"], abs=0.01)
    assert len(matrix.read_text().splitlines()) == len(rows) + 1
    (event,) = (tmp_path / "work").rglob("events.out.*")
    written = EventAccumulator(str(event.parent))
    written.Reload()
    assert "IoU/grass" in written.Tags()["scalars"]


def test_an_existing_file_is_said_before_the_model_is_built(
    shapes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.csv").write_text("mine")
    words = [*shapes, "--per-class", tmp_path / "c.csv"]
    ends_in("exists and is left as it is; .* or give --overwrite", run_test, words, capsys)
