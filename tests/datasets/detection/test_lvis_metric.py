"""mmdet's LVISMetric on OVLVISDataset: golden values, and a real piece of LVIS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, METRICS
from mmengine.registry import DefaultScope

from tests.datasets.detection.files import lvis, save
from tests.paths import REAL_DATA

LVIS_100 = REAL_DATA / "lvis_val_100/lvis_val_100.json"
Instances = dict[str, Any]


@pytest.fixture(autouse=True)
def mmdet_scope() -> None:
    DefaultScope.get_instance("test-lvis-metric", scope_name="mmdet")


def evaluate(
    path: Path, predict: Callable[[Any, dict[str, Any]], Instances], metric: list[str]
) -> dict[str, float]:
    """``predict(dataset, image)`` -> bboxes, scores, labels and, for ``segm``, masks."""
    dataset = DATASETS.build(
        dict(
            type="OVLVISDataset",
            ann_file=str(path),
            data_prefix=dict(img=""),
            test_mode=True,
            pipeline=[],
        )
    )
    judge = METRICS.build(dict(type="LVISMetric", ann_file=str(path), metric=metric))
    judge.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        image = dataset.get_data_info(index)
        sample = {"img_id": image["img_id"], "ori_shape": (image["height"], image["width"])}
        judge.process({}, [{**sample, "pred_instances": predict(dataset, image)}])
    return judge.evaluate(size=len(dataset))


def found(boxes: list[Any], labels: list[int], scores: list[float] | None = None) -> Instances:
    return {
        "bboxes": torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.long),
        "scores": torch.ones(len(labels)) if scores is None else torch.tensor(scores),
    }


def base_only(dataset: Any, image: dict[str, Any]) -> Instances:
    names, novel = dataset.metainfo["classes"], set(dataset.metainfo["novel_classes"])
    kept = [box for box in image["instances"] if names[box["bbox_label"]] not in novel]
    return found([box["bbox"] for box in kept], [box["bbox_label"] for box in kept])


def test_golden_ap_of_perfect_boxes_of_base_classes(tmp_path: Path) -> None:
    scores = evaluate(save(tmp_path / "lvis.json", lvis()), base_only, ["bbox"])
    assert [scores[f"lvis/bbox_AP{kind}"] for kind in ("", "f", "c", "r")] == [0.667, 1, 1, 0]


def test_golden_box_and_mask_ap_are_named_apart(tmp_path: Path) -> None:
    def predict(dataset: Any, image: dict[str, Any]) -> Instances:
        (box,) = image["instances"]
        mask = torch.zeros(1, image["height"], image["width"], dtype=torch.bool)
        rows, columns = (20, 20) if box["bbox_label"] < 2 else (13, 19)
        mask[:, 10 : 10 + rows, 10 : 10 + columns] = True
        return {**found([box["bbox"]], [box["bbox_label"]]), "masks": mask}

    scores = evaluate(save(tmp_path / "lvis.json", lvis()), predict, ["bbox", "segm"])
    assert [scores[f"lvis/bbox_AP{kind}"] for kind in ("f", "c", "r")] == [1, 1, 1]
    # The rare mask covers 247 of 400 px: right at the IoU thresholds 0.5, 0.55 and 0.6 of ten.
    assert [scores[f"lvis/segm_AP{kind}"] for kind in ("f", "c", "r")] == [1, 1, 0.3]


def test_golden_only_checked_classes_count_as_wrong(tmp_path: Path) -> None:
    """The json says of every image that class 0 is not there, and nothing about the others."""

    def predict(dataset: Any, image: dict[str, Any]) -> Instances:
        (box,) = image["instances"]
        labels = [box["bbox_label"], 0, 1, 2]
        scores = [0.5, *(0.0 if label == labels[0] else 0.9 for label in (0, 1, 2))]
        wrong = [[60.0, 40, 90, 70]] * 3
        return found([box["bbox"], *wrong], labels, scores)

    scores = evaluate(save(tmp_path / "lvis.json", lvis()), predict, ["bbox"])
    # Class 0: two confident mistakes before the one hit, a precision of 1/3.
    assert [scores[f"lvis/bbox_AP{kind}"] for kind in ("f", "c", "r")] == [0.333, 1, 1]


@pytest.mark.skipif(not LVIS_100.is_file(), reason="the piece of LVIS is not here")
def test_real_annotations_with_300_boxes_an_image() -> None:
    rng = np.random.default_rng(0)

    def predict(dataset: Any, image: dict[str, Any]) -> Instances:
        right = base_only(dataset, image)
        count = 300 - len(right["labels"])
        corner = rng.uniform(0, 200, (count, 2))
        wrong = found(
            np.concatenate([corner, corner + rng.uniform(5, 200, (count, 2))], 1).tolist(),
            rng.integers(0, len(dataset.metainfo["classes"]), count).tolist(),
            rng.uniform(0, 0.9, count).tolist(),
        )
        return {key: torch.cat([right[key], wrong[key]]) for key in right}

    scores = evaluate(LVIS_100, predict, ["bbox"])
    # One of its 977 boxes is of a rare class. What is right comes before what is wrong.
    assert [scores[f"lvis/bbox_AP{kind}"] for kind in ("f", "c", "r")] == [1, 1, 0]
