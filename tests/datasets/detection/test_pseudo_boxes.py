"""Pseudo boxes go through every transform with their weights, and reach only models for them."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import PackDetInputs
from mmdet.models.detectors import BaseDetector
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.registry import init_default_scope
from PIL import Image

import mmclipdis  # noqa: F401  (registers)
from mmclipdis.datasets import RepeatFactorSampler
from mmclipdis.datasets.detection.pseudo_boxes import MARK
from mmclipdis.engine.data_check import check_boxes
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
    """A pseudo box of image 1 whose weight, place and width say which one it is."""
    return record(1, [12.0 * index, 5.0 * index, 4.0 + index, 8.0], weight=index / 8)


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
    # Each weight tells which box it is of. Labels of known classes, which every transform keeps in
    # step with the boxes, say where the same random numbers take that box.
    dataset = DATASETS.build(
        {**world(tmp_path, [coded(i) for i in range(1, 6)]), "pipeline": [*LOAD, *steps, PACK]}
    )
    followed = 0
    for seed in range(6):
        found = drawn(dataset, seed)
        if found is None:  # no box was left
            continue
        plain = drawn(dataset, seed, known_labels=True)
        for box, label, weight in zip(found.bboxes.tensor, found.labels, found.weights.tolist()):
            place = plain.labels.tolist().index(round(weight * 8) if label < 0 else 0)
            assert torch.equal(box, plain.bboxes.tensor[place])
            followed += int(label) < 0
    assert followed >= 3


def drawn(dataset: Any, seed: int, known_labels: bool = False) -> Any:
    """Boxes of image 1 after a pipeline whose random numbers begin with this seed."""
    np.random.seed(seed)
    torch.manual_seed(seed)
    random.seed(seed)
    info = dataset.get_data_info(0)
    if known_labels:
        del info[MARK]
        for place, box in enumerate(info["instances"]):
            box["bbox_label"] = place
    packed = dataset.pipeline(info)
    return None if packed is None else packed["data_samples"].gt_instances


@pytest.mark.parametrize("mix", ["Mosaic", "CachedMosaic", "MixUp", "CachedMixUp", "CopyPaste"])
def test_weights_of_joined_images(tmp_path: Path, mix: str) -> None:
    records = [record(i, [20 * i, 10 * i, 20, 20], weight=i / 4) for i in (1, 2, 3)]
    inner = {**world(tmp_path, records), "pipeline": LOAD}
    step: dict[str, Any] = {"type": mix}
    if mix == "CopyPaste":
        step["paste_by_box"] = True  # without masks
    else:
        step |= {"img_scale": (100, 100), "pad_val": 114.0}
    steps = [step, PACK]
    joined = DATASETS.build(
        {"type": "MultiImageMixDataset", "dataset": inner, "pipeline": steps, "max_refetch": 50}
    )
    seen: set[float] = set()
    for seed in range(8):
        random.seed(seed)
        np.random.seed(seed)
        boxes = joined[seed % 3]["data_samples"].gt_instances
        assert len(boxes.weights) == len(boxes.labels) == len(boxes.bboxes)
        assert set(boxes.labels.tolist()) <= {-1, 2}
        weights = [w for w, label in zip(boxes.weights.tolist(), boxes.labels) if label < 0]
        assert set(weights) <= {0.25, 0.5, 0.75}
        seen |= {len(set(weights))}
    assert max(seen) >= 2, "no picture held boxes of two images"


def test_images_without_the_mark_are_joined_with_others(tmp_path: Path) -> None:
    with_boxes = {**world(tmp_path, [record(1, [50, 40, 30, 20], 0.25)]), "pipeline": LOAD}
    others = {**with_boxes, "pseudo_boxes": None}
    joined = DATASETS.build({"type": "ConcatDataset", "datasets": [others, with_boxes]})
    pack = TRANSFORMS.build(PACK)
    main, more = joined[0], joined[3]
    assert MARK not in main
    # as Mosaic and MixUp do with the labels of the images that they draw
    for key in ("gt_bboxes", "gt_bboxes_labels", "gt_ignore_flags"):
        cat = main[key].cat if key == "gt_bboxes" else np.concatenate
        main[key] = cat([main[key], more[key]])
    boxes = pack(main)["data_samples"].gt_instances
    assert boxes.labels.tolist() == [2, 2, -1]
    assert boxes.weights.tolist() == [1.0, 1.0, 0.25]


def test_a_box_that_is_there_twice_counts_once(tmp_path: Path, monkeypatch) -> None:
    said: list[str] = []
    place = "mmclipdis.datasets.detection.coco.print_log"
    monkeypatch.setattr(place, lambda text, **_: said.append(text))
    twice = [record(1, [50, 40, 30, 20], 0.25), record(1, [50, 40, 30, 20], 0.5)]
    dataset = DATASETS.build(world(tmp_path, [*twice, record(2, [50, 40, 30, 20])]))
    assert dataset[0]["data_samples"].gt_instances.weights.tolist() == [1.0, 0.25]
    assert dataset[1]["data_samples"].gt_instances.labels.tolist() == [2, -1]
    assert any("1 do not count: they are boxes that an earlier record has" in s for s in said)


def test_mmdet_own_class_packs_as_well(tmp_path: Path) -> None:
    config = {**world(tmp_path, [record(1, [50, 40, 30, 20], 0.25)])}
    config["pipeline"] = [*LOAD, {"type": PackDetInputs}]
    boxes = DATASETS.build(config)[0]["data_samples"].gt_instances
    assert (boxes.labels.tolist(), boxes.weights.tolist()) == ([2, -1], [1.0, 0.25])


def test_unknown_boxes_count_for_no_class(tmp_path: Path) -> None:
    config = world(tmp_path, [record(1, [50, 40, 30, 20])])
    dataset = DATASETS.build(config)
    assert dataset.get_cat_ids(0) == [2]
    items = [dataset.get_data_info(i) for i in range(3)]
    plain = DATASETS.build({**config, "pseudo_boxes": None})
    stock = [plain.get_data_info(i) for i in range(3)]
    assert check_boxes(dataset, items, training=True) == check_boxes(plain, stock, training=True)
    balanced = DATASETS.build(
        {"type": "ClassBalancedDataset", "dataset": config, "oversample_thr": 1e-3}
    )
    repeated = DATASETS.build({"type": "RepeatDataset", "dataset": config, "times": 4})
    for wrapped, images in ((balanced, 3), (repeated, 12)):
        assert RepeatFactorSampler(wrapped, 1.0).weights.tolist() == [1.0] * images
    for item in items:
        item["instances"] = [box for box in item["instances"] if box["bbox_label"] < 0]
    with pytest.raises(ValueError, match="has a box to learn from"):
        check_boxes(dataset, items, training=True)


def test_images_without_real_boxes_stay_out(tmp_path: Path) -> None:
    config = world(tmp_path, [record(2, [50, 40, 30, 20]), record(4, [5, 5, 20, 20])], images=4)
    content = coco([("car", 1), ("dog", 2), ("car", 3), ("car", 4)], crowd=())
    content["annotations"] = [n for n in content["annotations"] if n["image_id"] != 4]
    save(tmp_path / "a.json", content)  # image 2 has a novel class, image 4 nothing
    kept = DATASETS.build(config)
    assert [kept.get_data_info(i)["img_id"] for i in range(len(kept))] == [1, 3]
    everything = DATASETS.build({**config, "filter_cfg": None})
    assert len(everything) == 4
    assert everything[3]["data_samples"].gt_instances.labels.tolist() == [-1]


def test_a_file_of_more_images_than_the_data_have(tmp_path: Path, monkeypatch) -> None:
    said: list[str] = []
    place = "mmclipdis.datasets.detection.coco.print_log"
    monkeypatch.setattr(place, lambda text, **_: said.append(text))
    records = [record(i, [50, 40, 30, 20]) for i in range(1, 100)]
    records += [record(1, [100, 5, 9, 9]), record(1, [5, 5, 0.5, 9]), record(2, [98, 5, -3, 9])]
    dataset = DATASETS.build(world(tmp_path, records))
    assert [len(dataset.get_data_info(i)["instances"]) for i in range(3)] == [2, 2, 2]
    for line in (
        r"3 pseudo boxes of \S*p.json in 3 of 3 images",
        r"pseudo boxes of \S*p.json 96 do not count: they are of images that the data do not have "
        r"\(the first: record 3, image 4\)",
        r"1 do not count: they are outside of their image \(the first: record 99, image 1\)",
        r"2 do not count: they are less than a pixel wide or high \(the first: record 100, image 1",
    ):
        assert re.search(line, "\n".join(said)), line


def test_lvis(tmp_path: Path) -> None:
    save(tmp_path / "l.json", lvis())
    save(tmp_path / "p.json", [record(2, [50, 40, 30, 20], 0.25)])
    (tmp_path / "train2017").mkdir()
    for number in (1, 2, 3):
        Image.new("RGB", (100, 80)).save(tmp_path / f"train2017/{number:012d}.jpg")
    dataset = DATASETS.build(
        {
            "type": "OVLVISDataset",
            "data_root": str(tmp_path),
            "ann_file": "l.json",
            "data_prefix": {"img": ""},
            "pseudo_boxes": str(tmp_path / "p.json"),
            "pipeline": [*LOAD, PACK],
        }
    )
    boxes = dataset[1]["data_samples"].gt_instances
    assert (boxes.labels.tolist(), boxes.weights.tolist()) == ([1, -1], [1.0, 0.25])


def test_a_detector_that_says_so_gets_them(tmp_path: Path) -> None:
    dataset = DATASETS.build(world(tmp_path, [record(1, [50, 40, 30, 20], 0.25)]))
    samples = [dataset[i]["data_samples"] for i in range(3)]

    class Takes(BaseDetector):
        takes_pseudo_boxes = True
        extract_feat = predict = _forward = None

        def loss(self, inputs, samples):
            return [sample.gt_instances.weights.tolist() for sample in samples]

    assert Takes()(torch.zeros(3, 3, 8, 8), samples, mode="loss") == [[1.0, 0.25], [1.0], [1.0]]
