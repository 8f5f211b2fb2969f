"""InfoCLIP in whole runs: resuming, two processes, checkpoints and their export."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_checkpoint
from mmseg.registry import MODELS

from mmclipdis.engine import read_checkpoint
from mmclipdis.engine.foreign_checkpoint_guard import ForeignCheckpointGuard
from mmclipdis.models.segmentation.infoclip.checkpoint import student_of
from tests.models.segmentation.catseg.test_configs import write_images
from tests.models.segmentation.catseg.tiny import shrink_data, shrink_model
from tests.models.segmentation.infoclip.tiny import (
    batch,
    build,
    catseg,
    drift,
)
from tests.paths import ROOT
from tests.ranks import run_ranks
from tools.model_converters import infoclip


def shrunk(folder: Path, **changes) -> Config:
    """The config with a tiny CLIP, on the images under ``folder``."""
    config = Config.fromfile(ROOT / "configs/infoclip/infoclip_vitb16_coco-stuff.py")
    shrink_model(config.model.segmentor, patch=16)
    config.merge_from_dict(
        {
            "train_dataloader.batch_size": 2,
            "train_cfg.max_iters": 2,
            "train_cfg.val_interval": 100,
            "env_cfg.dist_cfg.backend": "gloo",
            "default_hooks.checkpoint.interval": 1,
            "default_hooks.logger.interval": 1,
            "model.grad_norm_interval": 1,
            "randomness": {"seed": 3},
            **changes,
        }
    )
    shrink_data(config, folder / "data")
    return config


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder and runner of a training of two iterations."""
    folder = tmp_path_factory.mktemp("infoclip")
    write_images(folder / "data", "train2017", [(70, 101), (130, 66), (80, 80)])
    write_images(folder / "data", "val2017", [(75, 120)])
    runner = Runner.from_cfg(shrunk(folder, work_dir=str(folder / "whole")))
    runner.train()
    return folder, runner


def test_a_resumed_run_is_the_same_and_tests_its_own_checkpoint(whole, tmp_path):
    folder, first = whole
    start = str(folder / "whole" / "iter_1.pth")
    resumed = Runner.from_cfg(
        shrunk(folder, work_dir=str(tmp_path / "resumed"), load_from=start, resume=True)
    )
    resumed.train()
    ours, theirs = resumed.model, first.model
    for state in ("state_dict", "teacher"):
        one, other = (
            m.state_dict() if state == "state_dict" else m.teacher.state_dict()
            for m in (ours, theirs)
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one), state
    scalars = first.message_hub.log_scalars
    assert {"train/grad_task_encoders", "train/loss_compression"} <= set(scalars)
    last = str(folder / "whole" / "iter_2.pth")
    tested = Runner.from_cfg(shrunk(folder, work_dir=str(tmp_path / "tested"), load_from=last))
    assert {"mIoU", "mIoU_present"} <= set(tested.test())


def test_an_exported_checkpoint_is_strictly_that_of_the_segmentor(whole, tmp_path):
    folder, runner = whole
    source, target = folder / "whole" / "iter_2.pth", tmp_path / "new" / "catseg.pth"
    assert not any("teacher" in name for name in read_checkpoint(source)["state_dict"])
    infoclip.convert(source, target)
    config = shrunk(folder).model.segmentor
    alone = MODELS.build(config)
    load_checkpoint(alone, str(target), strict=True)
    inside = runner.model.segmentor.state_dict()
    assert alone.state_dict().keys() == inside.keys()
    assert all(torch.equal(value, inside[name]) for name, value in alone.state_dict().items())
    started = MODELS.build(  # and back: InfoCLIP from CAT-Seg, which is then its teacher
        {
            "type": "InfoCLIP",
            "segmentor": {**config, "init_cfg": {"type": "Pretrained", "checkpoint": str(target)}},
        }
    )
    started.init_weights()
    again = started.segmentor.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in inside.items())
    taught = started.teacher.state_dict()
    assert all(torch.equal(value, inside[name]) for name, value in taught.items())
    wrong = shrunk(folder, work_dir=str(tmp_path / "wrong"), load_from=str(target))
    wrong.custom_hooks = [*wrong.get("custom_hooks", []), {"type": "ForeignCheckpointGuard"}]
    with pytest.raises(ValueError, match=r"model\.segmentor\.init_cfg"):
        Runner.from_cfg(wrong).test()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"decode_head.x": torch.ones(1)}, "CAT-Seg itself"),
        ({"backbone.x": torch.ones(1)}, "not a checkpoint of InfoCLIP"),
        ({}, "nothing"),
        ({"segmentor.x": torch.ones(1), "head.y": torch.ones(1)}, "unknown names"),
        ({"segmentor.x": 1}, "no tensors"),
    ],
)
def test_other_layouts_are_refused(state, words):
    with pytest.raises(ValueError, match=words):
        student_of(state)


def test_a_checkpoint_in_a_plain_segmentor_names_the_converter():
    runner = SimpleNamespace(model=MODELS.build(catseg()))
    with pytest.raises(ValueError, match=r"tools/model_converters/infoclip\.py"):
        ForeignCheckpointGuard().after_load_checkpoint(runner, {"segmentor.x": torch.ones(1)})


def test_the_converter_is_a_command(tmp_path, monkeypatch, capsys):
    source, target = tmp_path / "in.pth", tmp_path / "out.pth"
    torch.save({"state_dict": {"segmentor.a": torch.ones(2), "lpam.q": torch.ones(1)}}, source)
    monkeypatch.setattr(sys, "argv", ["infoclip.py", str(source), str(target)])
    infoclip.main()
    assert "1 tensors" in capsys.readouterr().out
    assert set(torch.load(target)["state_dict"]) == {"a"}
    monkeypatch.setattr(sys, "argv", ["infoclip.py", str(target), str(source), "--overwrite"])
    with pytest.raises(SystemExit, match=r"out\.pth: not a checkpoint of InfoCLIP"):
        infoclip.main()


def small() -> torch.nn.Module:
    model = build(
        catseg(decode_head={**catseg()["decode_head"], "loss": {"type": "GatheredBCELoss"}}),
        grad_norm_interval=1,
    )
    return drift(model.double()).train()


def total(losses: dict) -> torch.Tensor:
    return sum(value for name, value in losses.items() if "loss" in name)


def _worker(rank: int) -> dict[str, dict[str, torch.Tensor]]:
    model = MMDistributedDataParallel(small())
    inputs, samples = batch(4, torch.float64)
    share = slice(2 * rank, 2 * rank + 2)
    for _ in range(2):  # DDP stops in the second iteration on parameters without gradient
        model.zero_grad()
        losses = model(inputs[share], samples[share], mode="loss")
        total(losses).backward()
    gradients = {n: p.grad for n, p in model.module.named_parameters() if p.grad is not None}
    return {"losses": {n: loss.detach() for n, loss in losses.items()}, "gradients": gradients}


def test_two_processes_are_one_of_twice_the_batch():
    found = run_ranks(_worker, 2)
    model = small()
    losses = model.loss(*batch(4, torch.float64))
    total(losses).backward()
    for name in ("loss_compression", "loss_distillation"):
        for rank in range(2):
            torch.testing.assert_close(found[rank]["losses"][name], losses[name].detach())
    expected = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert expected.keys() == found[0]["gradients"].keys()
    for name, gradient in expected.items():
        close = torch.allclose(found[0]["gradients"][name], gradient, rtol=1e-6, atol=1e-9)
        assert close, name
        assert torch.equal(found[0]["gradients"][name], found[1]["gradients"][name]), name
