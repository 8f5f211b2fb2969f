"""DCLIP as a user runs it: train projectors, test the checkpoint, segment with it."""

from __future__ import annotations

import pytest

from mmclipdis.apis.run import test as run_test
from mmclipdis.apis.run import train as run_train
from mmclipdis.engine.checkpoint_io import read_checkpoint
from mmclipdis.shapes.coco import Settings, write_dataset
from tests.paths import ROOT

CONFIGS = ROOT / "configs/shapes"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two epochs of two iterations; the folder, the checkpoint, the logged scalars."""
    folder = tmp_path_factory.mktemp("dclip")
    write_dataset(folder / "shapes", Settings(train=8, val=6))
    options = [
        f"{name}_dataloader.dataset.data_root={folder / 'shapes'}" for name in ("train", "val")
    ]
    options += ["train_cfg.max_epochs=2", "train_cfg.val_interval=2", "log_level=WARNING"]
    options += ["train_dataloader.batch_size=4", "default_hooks.checkpoint.interval=2"]
    words = [str(CONFIGS / "dclip.py"), "--work-dir", str(folder / "work"), "--cfg-options"]
    scalars = run_train([*words, *options]).message_hub.log_scalars
    return folder, str(folder / "work" / "epoch_2.pth"), scalars


def measured(run, config, *options, checkpoint=()):
    folder = run[0]
    data = f"test_dataloader.dataset.data_root={folder / 'shapes'}"
    words = [str(CONFIGS / f"{config}.py"), *checkpoint, "--work-dir", str(folder / "test")]
    return run_test([*words, "--cfg-options", data, *options, "log_level=ERROR"])


def test_the_checkpoint_holds_projectors_and_measures_what_validation_measured(run):
    _, checkpoint, scalars = run
    state = read_checkpoint(checkpoint)["state_dict"]
    assert all(key.startswith("projectors.") for key in state)
    found = measured(run, "dclip", checkpoint=[checkpoint])
    for name in ("mAP", "CF1", "OF1"):
        assert found[name] == pytest.approx(scalars[f"val/{name}"].current(), abs=1e-4), name


def test_the_likeness_of_the_classes_is_logged(run):
    history = run[2]["train/mean_cosine"]
    assert -1 <= history.current() <= 1


def test_its_projectors_segment(run):
    plain = measured(run, "dclip_segment", "model.decode_head.projector=None")
    found = measured(run, "dclip_segment", f"model.decode_head.projector={run[1]}")
    assert 0 <= found["mIoU"] <= 100
    assert found["mIoU"] != plain["mIoU"]


def test_clip_as_it_is_names_the_classes(run):
    assert measured(run, "dclip_zero_shot")["mAP"] > 90
