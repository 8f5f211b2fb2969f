"""A resumed run whose schedule was changed has the rates of a run that had it from the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmengine.runner import Runner

from tests.engine.toy import toy_config

BY_EPOCH = {
    "train_dataloader.sampler": {"type": "DefaultSampler", "shuffle": True},
    "default_hooks.checkpoint": {"by_epoch": True, "interval": 1},
    "param_scheduler": [  # its end is filled in by mmengine
        {"type": "LinearLR", "start_factor": 0.1, "end": 6, "by_epoch": False},
        {"type": "PolyLR", "power": 0.9, "by_epoch": True},
    ],
}


def epochs(number: int, **more: Any) -> dict[str, Any]:
    loop = {"type": "ExactEpochBasedTrainLoop", "max_epochs": number, "val_interval": 100}
    return {**BY_EPOCH, "train_cfg": loop, **more}


def iterations(number: int, **more: Any) -> dict[str, Any]:
    loop = {"type": "ExactIterBasedTrainLoop", "max_iters": number, "val_interval": 100}
    return {"train_cfg": loop, "param_scheduler": {"type": "CosineAnnealingLR", "by_epoch": False,
            "T_max": number, "eta_min": 0}, **more}  # fmt: skip


def rates(work_dir: Path, changes: dict[str, Any]) -> list[float]:
    """Learning rate of each iteration that is trained."""
    seen: list[float] = []
    runner = Runner.from_cfg(toy_config(work_dir, **changes))
    train_step = runner.model.train_step

    def watched(data: Any, optim_wrapper: Any) -> Any:
        seen.append(optim_wrapper.get_lr()["lr"][0])
        return train_step(data, optim_wrapper)

    runner.model.train_step = watched
    runner.train()
    return seen


@pytest.mark.parametrize(
    ("changes", "first", "then"), [(epochs, 2, 4), (iterations, 8, 16)], ids=["epochs", "iters"]
)
def test_a_finished_run_that_is_prolonged_follows_the_longer_schedule(
    changes: Any, first: int, then: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = rates(tmp_path / "whole", changes(then))
    rates(tmp_path / "parts", changes(first))
    resumed = rates(tmp_path / "parts", changes(then, resume=True))
    assert resumed == pytest.approx(whole[-len(resumed) :], rel=1e-12)
    assert len(set(resumed)) > 1 and len(resumed) == 8
    said = capsys.readouterr().out
    assert "Resuming with another schedule" in said and f"{first} -> {then}" in said


def test_the_same_schedule_is_restored_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates(tmp_path, epochs(4))
    rates(tmp_path, epochs(4, resume=True, load_from=str(tmp_path / "epoch_2.pth")))
    assert "Resuming with" not in capsys.readouterr().out


def test_another_base_rate_has_no_effect_and_this_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates(tmp_path, iterations(8))
    rates(tmp_path, iterations(8, resume=True, **{"optim_wrapper.optimizer.lr": 0.5}))
    assert "the checkpoint, 0.01; the config's, 0.5, has no effect" in capsys.readouterr().out
