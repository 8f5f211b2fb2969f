"""Pseudo boxes go through every transform with their weights, and reach only models for them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmengine.dataset import ClassBalancedDataset
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from PIL import Image

import mmclipdis  # noqa: F401  (registers)
from mmclipdis.engine import DataCheckHook
from mmclipdis.engine.data_check import check_boxes
from mmclipdis.models.detection.unknown_boxes import check_unknown_boxes
from mmclipdis.utils.unknown_boxes import label_of, labels_and_weights
from tests.datasets.detection.files import coco, lvis, save

LOAD: list[dict[str, Any]] = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations", "with_bbox": True},
]
PACK = {"type": "PackDetInputs"}


@pytest.fixture(autouse=True)
def mmdet_scope() -> None:
    init_default_scope("mmdet")


def record(image: Any, box: Any, weight: float = 0.5, **more: Any) -> dict[str, Any]:
    return {
        "image_id": image,
        "bbox": box,
        "category_id": -1,
        "pseudo": 1,
        "weight": weight,
        **more,
    }


def world(folder: Path, records: Any, images: int = 3) -> dict[str, Any]:
    """Config of a data set of photos of 100 x 80 with a car each, and pseudo boxes."""
    save(folder / "a.json", coco([("car", i) for i in range(1, images + 1)], crowd=()))
    save(folder / "p.json", records)
    for number in range(1, images + 1):
        Image.new("RGB", (100, 80), (40 * number, 0, 0)).save(folder / f"{number}.jpg")
    return {
        "type": "OVCocoDataset",
        "data_root": str(folder),
        "ann_file": "a.json",
        "data_prefix": {"img": ""},
        "pseudo_boxes": "p.json",
        "pipeline": [*LOAD, PACK],
    }


def coded(index: int) -> dict[str, Any]:
    """A pseudo box of image 1 that its weight tells: 6 x 8 px at (12 * index, 5 * index)."""
    return record(1, [12.0 * index, 5.0 * index, 6.0, 8.0], weight=index / 8)


def test_boxes_labels_and_weights_as_a_model_gets_them(tmp_path: Path) -> None:
    records = [record(1, [50, 40, 30, 20], 0.25), record(2, [90, -5, 20, 25], 1.0)]
    dataset = DATASETS.build(world(tmp_path, records))
    first, second, third = (dataset[i]["data_samples"].gt_instances for i in range(3))
    assert first.bboxes.tensor.tolist() == [[10, 10, 30, 30], [50, 40, 80, 60]]
    assert first.labels.tolist() == [2, -1]
    assert first.weights.tolist() == [1.0, 0.25]
    assert second.bboxes.tensor[1].tolist() == [90, 0, 100, 20]  # clipped
    assert second.weights.tolist() == [1.0, 1.0]
    assert (third.labels.tolist(), third.weights.tolist()) == ([2], [1.0])


def test_without_a_file_boxes_are_those_of_the_stock_data_set(tmp_path: Path) -> None:
    config = world(tmp_path, [record(1, [50, 40, 30, 20])])
    del config["pseudo_boxes"]
    assert "weights" not in DATASETS.build(config)[0]["data_samples"].gt_instances


def test_in_test_mode_the_file_is_not_even_read(tmp_path: Path) -> None:
    config = world(tmp_path, [])
    (tmp_path / "p.json").unlink()
    boxes = DATASETS.build({**config, "test_mode": True})[0]["data_samples"].gt_instances
    assert boxes.labels.tolist() == [2]
    assert "weights" not in boxes


@pytest.mark.parametrize("weight", [0.0, 1e-6, 0.1, 1 / 3, 0.5, 0.999999, 1.0])
def test_a_weight_survives_as_a_label(weight: float) -> None:
    labels, weights = labels_and_weights(torch.tensor([3, label_of(weight), 0]))
    assert labels.tolist() == [3, -1, 0]
    assert weights.tolist() == pytest.approx([1.0, weight, 1.0], abs=5e-7)


#: Steps of one image, each of which moves, drops or reorders boxes.
STEPS: dict[str, list[dict[str, Any]]] = {
    "resize": [{"type": "Resize", "scale": (200, 160), "keep_ratio": True}],
    "random resize": [
        {"type": "RandomResize", "scale": (200, 160), "ratio_range": (0.5, 2.0), "keep_ratio": True}
    ],
    "crop": [{"type": "RandomCrop", "crop_size": (40, 50), "allow_negative_crop": True}],
    "crop by IoU": [{"type": "MinIoURandomCrop"}],
    "expand": [{"type": "Expand", "prob": 1.0}],
    "flip": [{"type": "RandomFlip", "prob": 1.0}],
    "filter": [{"type": "FilterAnnotations", "min_gt_bbox_wh": (7, 7)}],
    "choice": [
        {
            "type": "RandomChoice",
            "transforms": [
                [{"type": "RandomFlip", "prob": 1.0}],
                [{"type": "RandomCrop", "crop_size": (60, 70), "allow_negative_crop": True}],
            ],
        }
    ],
    "shift": [{"type": "RandomShift", "prob": 1.0}],
    "affine": [{"type": "RandomAffine"}],
    "cut out": [{"type": "RandomErasing", "n_patches": 3, "ratio": 0.4}],
}


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_weights_stay_with_their_boxes(tmp_path: Path, steps: list[dict[str, Any]]) -> None:
    # Weights tell which box it is: whatever a step does to five boxes, it does to five data sets
    # with one of them each.
    kept = 0
    many = DATASETS.build(
        {**world(tmp_path, [coded(i) for i in range(1, 6)]), "pipeline": [*LOAD, *steps, PACK]}
    )
    for seed in range(6):
        found = drawn(many, seed)
        if found is None:
            continue
        for box, label, weight in zip(found.bboxes.tensor, found.labels, found.weights.tolist()):
            if label < 0:
                assert expected(many, seed, weight, steps) == pytest.approx(box.tolist(), abs=1e-3)
                kept += 1
    assert kept or steps is STEPS["filter"]


def drawn(dataset: Any, seed: int) -> Any:
    """Boxes of image 1 after a pipeline whose random numbers begin with this seed."""
    np.random.seed(seed)
    torch.manual_seed(seed)
    import random

    random.seed(seed)
    info = dataset.get_data_info(0)
    packed = dataset.pipeline(info)
    return None if packed is None else packed["data_samples"].gt_instances


def expected(dataset: Any, seed: int, weight: float, steps: list[dict[str, Any]]) -> list[float]:
    """Where the step takes the box of this weight, found by the order of all boxes without it."""
    index = round(weight * 8)
    info = dataset.get_data_info(0)
    for place, box in enumerate(info["instances"]):
        box["bbox_label"] = place  # plain labels of known classes
    random_again(seed)
    found = dataset.pipeline({key: info[key] for key in info if key != "has_pseudo_boxes"})
    boxes = found["data_samples"].gt_instances
    return boxes.bboxes.tensor[boxes.labels.tolist().index(index)].tolist()


def random_again(seed: int) -> None:
    import random

    np.random.seed(seed)
    torch.manual_seed(seed)
    random.seed(seed)
