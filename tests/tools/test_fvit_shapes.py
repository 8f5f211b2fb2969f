"""F-ViT as a user runs it on ShapeScenes: train on base classes, test on all, with any score."""

from __future__ import annotations

import pytest
import torch

from mmclipdis.apis.run import test as run_test
from mmclipdis.apis.run import train as run_train
from mmclipdis.engine.checkpoint_io import read_checkpoint
from mmclipdis.shapes.coco import Settings, write_dataset
from tests.paths import ROOT

CONFIG = str(ROOT / "configs/shapes/fvit.py")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two iterations of two pictures; the folder and the checkpoint."""
    folder = tmp_path_factory.mktemp("fvit")
    write_dataset(folder / "shapes", Settings(train=8, val=4))
    options = [f"train_dataloader.dataset.data_root={folder / 'shapes'}"]
    options += ["train_dataloader.batch_size=2", "train_cfg.max_iters=2", "log_level=WARNING"]
    options += ["train_cfg.val_interval=10", *data(folder, "val")]
    options += ["default_hooks.checkpoint.interval=2"]
    run_train([CONFIG, "--work-dir", str(folder / "work"), "--cfg-options", *options])
    return folder, str(folder / "work" / "iter_2.pth")


def data(folder, loader):
    """The options that name the data of testing or validation."""
    ann_file = folder / "shapes" / "annotations" / "instances_val.json"
    root = f"{loader}_dataloader.dataset.data_root={folder / 'shapes'}"
    return [root, f"{loader}_evaluator.ann_file={ann_file}"]


@pytest.mark.parametrize("score", ["fused", "vlm", "detector"])
def test_base_and_novel_classes_are_measured_apart(run, score):
    folder, checkpoint = run
    options = [*data(folder, "test"), f"model.test_cfg.rcnn.score={score}", "log_level=ERROR"]
    words = [CONFIG, checkpoint, "--work-dir", str(folder / score), "--cfg-options", *options]
    found = run_test(words)
    assert {"coco/base_ap50", "coco/novel_ap50", "coco/bbox_mAP_50"} <= set(found)


def test_clip_stays_and_the_rest_learns(run):
    state = read_checkpoint(run[1])["state_dict"]
    from mmclipdis.shapes.weights import load_towers

    clip = load_towers()[0].state_dict()
    prefix = "backbone.encoder.tower."
    tower = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    assert tower and all(torch.equal(value, clip[name]) for name, value in tower.items())
    assert state["roi_head.bbox_head.detect_temperature"] != 50
    assert not [key for key in state if ".text." in key]
