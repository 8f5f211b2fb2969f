"""The detection data configs build on miniature data and give what F-ViT reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, METRICS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope

from mmclipdis.datasets.detection.classes import BASE_CLASSES, OV_CLASSES
from mmclipdis.shapes.coco import Settings, write_dataset
from mmclipdis.shapes.world import NOVEL, THINGS
from tests.datasets.detection.files import coco, lvis, save
from tests.paths import ROOT

CONFIGS = ROOT / "configs/_base_/datasets"
SIZES = {"ov_coco": 640, "ov_coco_896": 896, "ov_lvis": 1024, "ov_lvis_896": 896}
#: The model whose preprocessor pads pictures of that size.
MODEL_OF = {
    "ov_coco": "fvit_vitb16",
    "ov_coco_896": "fvit_vitl14-336",
    "ov_lvis": "fvit_vitb16_lvis",
    "ov_lvis_896": "fvit_vitl14-336_lvis",
}


@pytest.fixture(autouse=True)
def mmdet_scope() -> None:
    DefaultScope.get_instance("test-ov-configs", scope_name="mmdet")


def load(name: str, root: Path) -> Config:
    config = Config.fromfile(CONFIGS / f"{name}.py")
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.dataset.data_root = str(root)
    return config


def preprocessor(name: str) -> Any:
    """Of the model that the data are for."""
    folder = ROOT / "configs/_base_/models"
    shapes = ROOT / "configs/shapes/fvit.py"
    path = shapes if name not in MODEL_OF else folder / f"{MODEL_OF[name]}.py"
    return MODELS.build(Config.fromfile(path).model.data_preprocessor)


def photo(path: Path, height: int = 80, width: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    cv2.imwrite(str(path), pixels)


def data_of(name: str, root: Path) -> None:
    """Files at the paths that the config names: three photos with a base class each."""
    config = load(name, root)
    for number, loader in enumerate((config.train_dataloader, config.val_dataloader)):
        dataset = loader.dataset
        if name.startswith("ov_lvis"):
            content = lvis()
            files = [f"train2017/{i:012d}.jpg" for i in (1, 2, 3)]
        else:
            content = coco([("car", 1), ("toothbrush", 2), ("dog", 3)], OV_CLASSES, crowd=())
            files = [f"{('train2017', 'val2017')[number]}/{i}.jpg" for i in (1, 2, 3)]
        save(root / dataset.ann_file, content)
        for file in files:
            photo(root / file)


@pytest.mark.parametrize("name", SIZES)
def test_configs_build_and_give_squares(name: str, tmp_path: Path) -> None:
    np.random.seed(0)
    data_of(name, tmp_path)
    config = load(name, tmp_path)
    size = SIZES[name]
    train = DATASETS.build(config.train_dataloader.dataset)
    assert len(train) == 2  # not the one with a novel class only
    prepare = preprocessor(name)
    batch = prepare(pseudo_collate([train[0], train[1]]), training=True)
    assert batch["inputs"].shape == (2, 3, size, size)
    truth = batch["data_samples"][0].gt_instances
    assert len(truth.bboxes) == 1
    assert ("masks" in truth) == name.startswith("ov_lvis")
    test = DATASETS.build(config.val_dataloader.dataset)
    assert len(test) == 3
    sample = test[0]["data_samples"]
    assert sample.img_shape == (round(size * 0.8), size)
    assert sample.ori_shape == (80, 100)


def test_golden_padding_of_a_test_picture(tmp_path: Path) -> None:
    data_of("ov_coco", tmp_path)
    photo(tmp_path / "val2017/1.jpg", 480, 640)
    config = load("ov_coco", tmp_path)
    path = tmp_path / config.val_dataloader.dataset.ann_file
    content = json.loads(path.read_text())
    content["images"][0].update(width=640, height=480)
    save(path, content)
    batch = pseudo_collate([DATASETS.build(config.val_dataloader.dataset)[0]])
    inputs = preprocessor("ov_coco")(batch)["inputs"]
    assert inputs.shape == (1, 3, 640, 640)
    assert (inputs[:, :, 480:] == 0).all()
    assert inputs[:, :, 479].abs().sum(dim=1).min() > 0


def instructions(config: Config) -> str:
    """Both pipelines without the sizes in them."""
    size = config.image_size
    text = repr([config.train_pipeline, config.test_pipeline])
    return text.replace(repr(size), "S").replace(repr(list(size)), "S")


@pytest.mark.parametrize("name", ["ov_coco", "ov_lvis"])
def test_variants_differ_in_size_only(name: str) -> None:
    one, other = (Config.fromfile(CONFIGS / f"{n}.py") for n in (name, f"{name}_896"))
    assert other.image_size == (896, 896)
    assert one.image_size[0] != 896
    assert instructions(one) == instructions(other)
    for config in (one, other):
        assert config.train_dataloader.dataset.pop("pipeline") == config.train_pipeline
        assert config.val_dataloader.dataset.pop("pipeline") == config.test_pipeline
        assert config.test_dataloader.dataset.pop("pipeline") == config.test_pipeline
        for key in ("train_pipeline", "test_pipeline", "image_size"):
            config.pop(key)
    assert one.to_dict() == other.to_dict()


def evaluate(config: Config, path: Path, predict: Any) -> dict[str, float]:
    """The metric of the config on boxes that ``predict(dataset)`` gives for each image."""
    dataset = DATASETS.build(config.val_dataloader.dataset)
    metric = METRICS.build({**config.val_evaluator, "ann_file": str(path)})
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        boxes = [box for box in info["instances"] if predict(box["bbox_label"])]
        instances = {
            "bboxes": torch.tensor([box["bbox"] for box in boxes]).reshape(-1, 4),
            "scores": torch.ones(len(boxes)),
            "labels": torch.tensor([box["bbox_label"] for box in boxes], dtype=torch.long),
        }
        sample = {"img_id": info["img_id"], "pred_instances": instances}
        metric.process({}, [{**sample, "ori_shape": (info["height"], info["width"])}])
    return metric.evaluate(size=len(dataset))


def test_golden_ap_of_perfect_detections_of_base_classes(tmp_path: Path) -> None:
    data_of("ov_coco", tmp_path)
    config = load("ov_coco", tmp_path)
    boxes = [(name, i) for i, name in enumerate(OV_CLASSES)]
    path = save(
        tmp_path / config.val_dataloader.dataset.ann_file, coco(boxes, OV_CLASSES, crowd=())
    )
    base = {OV_CLASSES.index(name) for name in BASE_CLASSES}
    scores = evaluate(config, path, lambda label: label in base)
    assert scores["coco/base_ap50"] == pytest.approx(1, abs=1e-9)
    assert scores["coco/novel_ap50"] == 0
    assert scores["coco/bbox_mAP_50"] == pytest.approx(48 / 65, abs=5e-4)  # mmdet rounds to 3
    scores = evaluate(config, path, lambda label: label not in base)
    assert scores["coco/base_ap50"] == 0
    assert scores["coco/novel_ap50"] == pytest.approx(1, abs=1e-9)


def test_lvis_metric_builds(tmp_path: Path) -> None:
    data_of("ov_lvis", tmp_path)
    config = load("ov_lvis", tmp_path)
    path = tmp_path / config.val_dataloader.dataset.ann_file
    assert METRICS.build({**config.val_evaluator, "ann_file": str(path)}).metrics == [
        "bbox",
        "segm",
    ]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shapes") / "data"
    write_dataset(out, Settings(train=16, val=16, seed=0))
    return out


def test_shapes_flags_are_those_of_the_world() -> None:
    info = Config.fromfile(CONFIGS / "shapes_detection.py").metainfo
    assert tuple(info.classes) == THINGS
    assert tuple(info.base_classes) == tuple(name for name in THINGS if name not in NOVEL)
    assert tuple(info.novel_classes) == tuple(name for name in THINGS if name in NOVEL)


def test_shapes_train_on_base_classes_only(shapes: Path) -> None:
    np.random.seed(0)
    config = load("shapes_detection", shapes)
    train = DATASETS.build(config.train_dataloader.dataset)
    novel = {THINGS.index(name) for name in train.metainfo["novel_classes"]}
    drawn = DATASETS.build({**config.train_dataloader.dataset, "novel_in_training": True})

    def seen(dataset: Any) -> list[int]:
        items = (dataset.get_data_info(i)["instances"] for i in range(len(dataset)))
        return [box["bbox_label"] for boxes in items for box in boxes]

    assert novel & set(seen(drawn))
    assert seen(train) == [label for label in seen(drawn) if label not in novel]
    prepare = preprocessor("shapes_detection")
    batch = prepare(pseudo_collate([train[i] for i in range(3)]), training=True)
    assert batch["inputs"].shape == (3, 3, 160, 160)
    assert min(len(sample.gt_instances.bboxes) for sample in batch["data_samples"]) >= 1


def test_shapes_are_evaluated_on_all_classes(shapes: Path) -> None:
    config = load("shapes_detection", shapes)
    path = shapes / config.val_dataloader.dataset.ann_file
    novel = {THINGS.index(name) for name in NOVEL if name in THINGS}
    scores = evaluate(config, path, lambda label: label in novel)
    assert scores["coco/novel_ap50"] == pytest.approx(1, abs=1e-9)
    assert scores["coco/base_ap50"] == 0
