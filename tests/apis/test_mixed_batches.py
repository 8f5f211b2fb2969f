"""Test batches of photos of several sizes give what single photos give, in every task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS as DETECTORS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from PIL import Image

from mmclipdis.apis.run import build_runner
from mmclipdis.shapes.coco import Settings, write_dataset
from tests.paths import ROOT

NAMES = ("clearclip", "regions", "dclip_zero_shot", "fvit")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ShapeScenes with three photos to test on, of three sizes."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_dataset(folder, Settings(train=4, val=3, seed=3))
    sizes = {Image.open(path).size for path in (folder / "images" / "val").iterdir()}
    assert len(sizes) == 3
    return folder


def shapes_config(name: str, shapes: Path, work_dir: Path, batch_size: int) -> Config:
    config = Config.fromfile(ROOT / f"configs/shapes/{name}.py")
    loader = config.test_dataloader
    loader.batch_size, loader.num_workers, loader.persistent_workers = batch_size, 0, False
    loader.dataset.data_root = str(shapes)
    if "ann_file" in config.test_evaluator:
        config.test_evaluator.ann_file = str(shapes / "annotations/instances_val.json")
    for key in ("train", "val"):
        for part in ("cfg", "dataloader", "evaluator"):
            config[f"{key}_{part}"] = None
    config.optim_wrapper = config.param_scheduler = None
    config.work_dir, config.launcher = str(work_dir), "none"
    return config


def metrics(config: Config, stock_runner: bool = True) -> dict[str, Any]:
    runner = Runner.from_cfg(config) if stock_runner else build_runner(config)
    if config.load_from is None:
        runner.model.init_weights()
    found: dict[str, Any] = runner.test()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_its_photos(name: str, shapes: Path, tmp_path: Path) -> None:
    found = []
    for batch_size in (1, 2):
        config = shapes_config(name, shapes, tmp_path, batch_size)
        if name == "fvit":
            with DefaultScope.overwrite_default_scope("mmdet"):
                torch.manual_seed(0)
                state = DETECTORS.build(config.model).state_dict()
            torch.save({"state_dict": state}, tmp_path / "random.pth")
            config.load_from = str(tmp_path / "random.pth")
        found.append(metrics(config))
    assert found[0] == pytest.approx(found[1], nan_ok=True) and found[0]


@pytest.mark.parametrize("stock_runner", [True, False], ids=["stock", "ours"])
def test_the_stock_segmentor_of_the_readme_takes_them_one_at_a_time(
    shapes: Path, tmp_path: Path, stock_runner: bool
) -> None:
    found = []
    for batch_size in (1, 2):
        config = shapes_config("clearclip", shapes, tmp_path, batch_size)
        head = {**config.model.decode_head, "num_classes": 18}
        config.model.update(type="EncoderDecoder", decode_head=head, test_cfg=dict(mode="whole"))
        if not stock_runner:
            config.custom_hooks = [h for h in config.custom_hooks if h.type != "VocabularyHook"]
            config.model.decode_head.vocabulary = "ShapeScenesDataset"
        found.append(metrics(config, stock_runner))
    assert found[0] == pytest.approx(found[1], nan_ok=True) and found[0]["mIoU"] > 5
