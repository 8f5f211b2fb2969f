"""The data configs of distillation build, also in mmseg's scope, and fit together."""

from __future__ import annotations

import pytest
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmclipdis.models.distillation.preprocessor import DistillDataPreprocessor
from mmclipdis.shapes.coco import Settings, write_dataset
from tests.datasets.distillation import files as distill_files
from tests.paths import ROOT

CONFIGS = ROOT / "configs" / "_base_" / "datasets"


def test_shapes(tmp_path):
    write_dataset(tmp_path, Settings(train=10, val=1))
    loader_config = Config.fromfile(CONFIGS / "shapes_distill.py").train_dataloader
    loader_config.dataset.data_root = str(tmp_path)
    with DefaultScope.overwrite_default_scope("mmseg"):
        loader = Runner.build_dataloader(loader_config, seed=0)
        inputs = DistillDataPreprocessor()(next(iter(loader)))["inputs"]
    assert tuple(inputs["image"].shape) == (6, 3, 160, 160)
    assert tuple(inputs["proxies"][160].shape) == (6, 3, 160, 160)
    assert tuple(inputs["crops"].shape[1:]) == (3, 80, 80)
    assert len(inputs["crops"]) == len(inputs["boxes"]) >= 6
    assert len(loader.dataset) == 10


def test_coco(tmp_path):
    loader_config = Config.fromfile(CONFIGS / "coco_distill.py").train_dataloader
    paths = distill_files.write_photos(tmp_path / "train2017", 3, ".jpg")
    (tmp_path / "annotations").mkdir()
    listing = ", ".join(f'{{"file_name": "{path.name}"}}' for path in paths)
    (tmp_path / "annotations" / "instances_train2017.json").write_text(f'{{"images": [{listing}]}}')
    loader_config.dataset.data_root = str(tmp_path)
    loader_config.update(num_workers=0, persistent_workers=False)
    loader = Runner.build_dataloader(loader_config, seed=0)
    inputs = DistillDataPreprocessor()(next(iter(loader)))["inputs"]
    assert tuple(inputs["image"].shape) == (3, 3, 560, 560)
    assert tuple(inputs["proxies"][490].shape) == (3, 3, 490, 490)
    assert tuple(inputs["crops"].shape[1:]) == (3, 224, 224)


@pytest.mark.parametrize(("gpus", "batch", "iterations"), [(4, 4, 7393), (4, 2, 14786)])
def test_iterations_of_an_epoch(gpus, batch, iterations):
    """The released script's number: the rest of the data makes one more batch."""
    config = Config.fromfile(CONFIGS / "coco_distill.py").train_dataloader
    data = range(118287)
    sampler = DefaultSampler(data, shuffle=config.sampler.shuffle, seed=0)
    sampler.num_samples = -(-len(data) // gpus)  # as with so many ranks
    drop_last = config.get("drop_last", False)
    loader = DataLoader(data, batch, sampler=sampler, drop_last=drop_last)
    assert len(loader) == iterations
