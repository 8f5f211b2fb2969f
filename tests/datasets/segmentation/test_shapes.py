"""ShapeScenesDataset follows mmseg's idioms on the generated folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS
from mmseg.utils import register_all_modules

import mmclipdis  # noqa: F401  (registers)
from mmclipdis.shapes.coco import Settings, write_dataset
from mmclipdis.shapes.world import BASE, CLASSES, GROUPS, NOVEL, PALETTE
from tests.paths import ROOT

PIPELINE = [
    {"type": t} for t in ("LoadImageFromFile", "mmseg.LoadAnnotations", "mmseg.PackSegInputs")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shapes") / "data"
    write_dataset(out, Settings(train=8, val=2, seed=0))
    register_all_modules(init_default_scope=False)
    return out


def _build(folder: Path, **settings: object) -> object:
    return DATASETS.build(
        {
            "type": "ShapeScenesDataset",
            "data_root": str(folder),
            "data_prefix": {"img_path": "images/train", "seg_map_path": "annotations/train"},
            "pipeline": PIPELINE,
            **settings,
        }
    )


def _labels(dataset: object, index: int) -> np.ndarray:
    return dataset[index]["data_samples"].gt_sem_seg.data.numpy()[0]


def test_all_classes_and_groups_are_in_the_metainfo(folder: Path) -> None:
    dataset = _build(folder)
    assert len(dataset) == 8
    assert tuple(dataset.metainfo["classes"]) == CLASSES
    assert [tuple(c) for c in dataset.metainfo["palette"]] == list(PALETTE)
    assert dataset.metainfo["groups"] == GROUPS
    item = dataset[0]
    assert item["inputs"].shape[1:] == item["data_samples"].gt_sem_seg.shape
    assert _labels(dataset, 0).max() < len(CLASSES)


def test_training_on_base_classes_ignores_the_others_and_keeps_the_groups(folder: Path) -> None:
    everything = _build(folder)
    base = _build(folder, metainfo={"classes": BASE})
    assert base.metainfo["groups"] == GROUPS
    assert tuple(base.metainfo["classes"]) == BASE
    expected = [PALETTE[CLASSES.index(name)] for name in BASE]
    assert [tuple(c) for c in base.metainfo["palette"]] == expected
    table = np.asarray([BASE.index(n) if n in BASE else 255 for n in CLASSES])
    labels = [_labels(everything, i) for i in range(8)]
    for index, full in enumerate(labels):
        np.testing.assert_array_equal(_labels(base, index), table[full])
    seen = {CLASSES[i] for full in labels for i in np.unique(full)}
    assert seen & set(NOVEL)


def test_shipped_config_trains_on_exactly_the_base_classes() -> None:
    path = ROOT / "configs/_base_/datasets/shapes.py"
    config = Config.fromfile(path)
    assert tuple(config.train_dataloader.dataset.metainfo.classes) == BASE
    assert config.train_dataloader.dataset.type == "ShapeScenesDataset"
