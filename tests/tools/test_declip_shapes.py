"""DeCLIP as a user runs it: distil, test the checkpoint, use the student elsewhere."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config

from mmclipdis.apis.run import test as run_test
from mmclipdis.apis.run import train as run_train
from mmclipdis.engine.checkpoint_io import read_checkpoint
from mmclipdis.shapes.coco import Settings, write_dataset
from tests.paths import ROOT

DISTILL = str(ROOT / "configs/shapes/declip_distill.py")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two iterations of distillation; the folder, the checkpoint, the last validation."""
    folder = tmp_path_factory.mktemp("distil")
    write_dataset(folder / "shapes", Settings(train=4, val=4))
    options = [
        f"{name}_dataloader.dataset.data_root={folder / 'shapes'}" for name in ("train", "val")
    ]
    options += [
        "train_cfg.max_iters=2",
        "train_cfg.val_interval=2",
        "train_dataloader.batch_size=2",
    ]
    options += ["default_hooks.checkpoint.interval=1", "log_level=WARNING"]
    runner = run_train([DISTILL, "--work-dir", str(folder / "work"), "--cfg-options", *options])
    scalars = runner.message_hub.log_scalars.items()
    metrics = {k.removeprefix("val/"): v.current() for k, v in scalars if k.startswith("val/")}
    return folder, str(folder / "work" / "iter_2.pth"), metrics


def measured(run, config, *options, checkpoint=()):
    folder = run[0]
    data = f"test_dataloader.dataset.data_root={folder / 'shapes'}"
    words = [str(ROOT / "configs/shapes" / f"{config}.py"), *checkpoint]
    words += ["--work-dir", str(folder / "test"), "--cfg-options", data, *options]
    return run_test([*words, "log_level=ERROR"])


def test_the_log_does_not_list_every_frozen_parameter(run):
    (log,) = (run[0] / "work").glob("*/*.log")
    assert "WARNING" in log.read_text()
    assert "is skipped since" not in log.read_text()


def test_the_checkpoint_measures_what_validation_measured(run):
    _, checkpoint, metrics = run
    found = measured(run, "declip_distill", checkpoint=[checkpoint])
    assert {name for name in found if "macc1" in name} >= {
        "rois_thing_macc1",
        "maskpool_stuff_macc1",
    }
    for name, value in found.items():
        if "macc" in name:
            assert value == pytest.approx(metrics[name], abs=1e-6)


def test_its_mixed_weights_lie_between_clips_and_the_trained_ones(run):
    saved = read_checkpoint(run[1])
    name = "student.tower.visual.transformer.resblocks.0.mlp.c_fc.weight"
    mixed, trained = saved["state_dict"][name], saved["unmixed_state_dict"][name]
    from mmclipdis.shapes.weights import load_towers

    clip = load_towers()[0].state_dict()[name.removeprefix("student.tower.")]
    torch.testing.assert_close(mixed, 0.7 * trained + 0.3 * clip, rtol=1e-4, atol=1e-6)
    assert not torch.equal(trained, clip)


def test_a_student_is_the_encoder_of_other_configs(run):
    _, checkpoint, metrics = run
    regions = measured(
        run,
        "regions",
        f"model.encoder.init_cfg.checkpoint={checkpoint}",
        "model.encoder.readout=csa",
        "model.regions=('rois','maskpool')",
    )
    assert regions["rois_thing_macc1"] == pytest.approx(metrics["rois_thing_macc1"], abs=1e-6)
    assert "mIoU" in measured(run, "declip", f"model.backbone.init_cfg.checkpoint={checkpoint}")


def test_a_student_read_out_in_another_way_is_refused_by_both_names(run):
    option = f"model.backbone.init_cfg.checkpoint={run[1]}"
    with pytest.raises(ValueError, match="csa.*qq.*any_readout=True"):
        measured(run, "declip", option, "model.backbone.readout=qq")
    more = ("model.backbone.readout=qq", "model.backbone.any_readout=True")
    assert "mIoU" in measured(run, "declip", option, *more)


def test_a_checkpoint_of_which_nothing_fits_is_refused(run):
    with pytest.raises(ValueError, match="nothing in the checkpoint belongs to the OpenVocabSeg"):
        measured(run, "declip", checkpoint=[run[1]])


def test_a_resumed_distillation_equals_an_uninterrupted_one(run, tmp_path):
    folder, checkpoint, _ = run
    start = str(folder / "work" / "iter_1.pth")
    config = Config.fromfile(folder / "work" / "declip_distill.py")
    config.dump(tmp_path / "config.py")
    run_train(
        [str(tmp_path / "config.py"), "--resume", start, "--work-dir", str(tmp_path / "work")]
    )
    whole, resumed = read_checkpoint(checkpoint), read_checkpoint(str(tmp_path / "work/iter_2.pth"))
    for part in ("state_dict", "unmixed_state_dict"):
        assert whole[part].keys() == resumed[part].keys()
        for name, value in whole[part].items():
            assert torch.equal(value, resumed[part][name]), name
