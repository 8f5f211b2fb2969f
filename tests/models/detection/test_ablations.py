"""Rows about detectors as words of ``--cfg-options``: each reaches what is built (25 s)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

from tests.models.detection.fvit import test_configs as fvit
from tests.models.detection.ovdquo import test_configs as ovdquo
from tests.words import config_of, read_words

FVIT = ("fvit/fvit_declip_vitb16_ov-coco", "shapes/fvit")
OVDQUO = ("ovdquo/ovdquo_declip_vitb16_ov-coco", "shapes/ovdquo")
NAMES, NOVEL = ("cat", "dog", "bus"), ("bus",)


@pytest.fixture(autouse=True)
def mmdet_scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield


def build(name: str, words: str) -> Any:
    model = config_of(name, words).model
    head = model.roi_head.bbox_head if "fvit" in name else model.bbox_head
    if name.startswith("shapes"):
        head.text_encoder.update(cache_dir=False, progress=False)
    else:
        (fvit if "fvit" in name else ovdquo).shrink_model(model)
    torch.manual_seed(0)
    built = MODELS.build(model).eval()
    built.set_vocabulary(NAMES, NOVEL)
    return built


@pytest.mark.parametrize("name", FVIT)
@pytest.mark.parametrize(
    ("words", "exponents"),
    [
        ("model.test_cfg.rcnn.alpha=0.3 model.test_cfg.rcnn.beta=0.6", (0.3, 0.3, 0.6, 0.3)),
        ("model.test_cfg.rcnn.alpha=0. model.test_cfg.rcnn.beta=0.", (0, 0, 0, 0)),
        ("model.test_cfg.rcnn.alpha=1. model.test_cfg.rcnn.beta=1.", (1, 1, 1, 1)),
        ("model.test_cfg.rcnn.score=detector", (0, 0, 0, 0)),
        ("model.test_cfg.rcnn.score=vlm", (1, 1, 1, 1)),
    ],
)
def test_the_words_of_fusion_reach_the_scores(
    name: str, words: str, exponents: tuple[float, ...]
) -> None:
    head = build(name, words).roi_head
    width = head.bbox_head.text.embeddings().shape[1]
    logits = torch.randn(5, 4)
    regions = torch.nn.functional.normalize(torch.randn(5, width), dim=1)
    alone = head.test_cfg.get("score", "fused") == "detector"
    found = head.scores(logits, None if alone else regions)
    detector = logits.softmax(1)
    clip = head.bbox_head.compare(regions, head.test_cfg.vlm_temperature).softmax(1)
    weight = torch.tensor(exponents)
    torch.testing.assert_close(found, detector ** (1 - weight) * clip**weight)


@pytest.mark.parametrize("name", OVDQUO)
def test_the_words_of_unknown_things_reach_model_and_data(name: str, tmp_path: Path) -> None:
    assert build(name, "").text_queries
    assert not build(name, "model.text_queries=False").text_queries
    assert build(name, "model.wildcard_iou=0.9").wildcard_iou == 0.9
    assert build(name, "model.dn_cfg.label_noise=0.5").dn_query_generator.label_noise == 0.5
    assert build(name, "model.test_cfg.target_class_factor=8.").test_cfg.target_class_factor == 8
    file = "annotations/boxes.json"
    words = "train_dataloader.dataset.pseudo_boxes={}"
    config = written(name, tmp_path, file)
    for value, known in ((file, [True, False]), ("None", [True])):
        config.merge_from_dict(read_words(words.format(value)))
        data = DATASETS.build(config.train_dataloader.dataset)
        found = data.get_data_info(0)["instances"]
        assert [entry["bbox_label"] >= 0 for entry in found] == known


def written(name: str, folder: Path, file: str) -> Config:
    """A photo with a box of a base class, and a pseudo box."""
    config = config_of(name)
    dataset = config.train_dataloader.dataset
    dataset.data_root = str(folder)
    dataset.ann_file, dataset.data_prefix = "annotations/train.json", dict(img="")
    dataset.metainfo = dict(classes=("cat", "dog"), base_classes=("cat", "dog"), novel_classes=())
    dataset.pipeline = [
        dict(type="LoadAnnotations", with_bbox=True),
        dict(type="PackDetInputs"),
    ]
    (folder / "annotations").mkdir()
    Image.new("RGB", (60, 60)).save(folder / "a.jpg")
    box = dict(id=1, image_id=1, category_id=1, bbox=[2, 2, 20, 20], area=400, iscrowd=0)
    content = dict(
        images=[dict(id=1, file_name="a.jpg", width=60, height=60)],
        annotations=[box],
        categories=[dict(id=1, name="cat"), dict(id=2, name="dog")],
    )
    (folder / dataset.ann_file).write_text(json.dumps(content))
    unknown = dict(image_id=1, bbox=[5, 35, 20, 20], category_id=-1, pseudo=1, weight=0.5)
    (folder / file).write_text(json.dumps([unknown]))
    return config
