"""Training stops at the first loss that is not a number, before the next checkpoint."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mmclipdis.engine import NonFiniteGuard, NonFiniteLossError
from mmclipdis.engine.nonfinite_guard import image_files
from tests.engine.toy import toy_config, train


def test_training_stops_and_the_last_checkpoint_is_good(tmp_path: Path) -> None:
    config = toy_config(
        tmp_path / "run",
        **{
            "train_dataloader.sampler": {"type": "DefaultSampler", "shuffle": False},
            "train_dataloader.dataset": {"type": "ToyDataset", "nan_at": 10},
            "train_cfg.val_interval": 100,
            "default_hooks.checkpoint.interval": 1,
            "custom_hooks": [{"type": "NonFiniteGuard"}],
        },
    )
    with pytest.raises(NonFiniteLossError) as error:
        train(config)
    message = str(error.value)
    assert "iteration 4: loss = nan" in message
    assert "files of the batch: 9.png, 10.png, 11.png" in message
    assert "iter_3.pth" in message
    assert not (tmp_path / "run" / "iter_4.pth").exists()
    saved = torch.load(tmp_path / "run" / "iter_3.pth", weights_only=True)["state_dict"]
    assert all(bool(value.isfinite().all()) for value in saved.values())


def runner() -> SimpleNamespace:
    return SimpleNamespace(iter=4, message_hub=SimpleNamespace(get_info=lambda key: None))


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), torch.tensor(float("nan"))])
def test_every_kind_of_broken_number_is_caught(value: float) -> None:
    with pytest.raises(NonFiniteLossError, match="decode.loss_ce.*none was saved yet"):
        NonFiniteGuard().after_train_iter(runner(), 4, None, {"decode.loss_ce": value})


def test_metrics_that_are_not_losses_may_be_nan() -> None:
    NonFiniteGuard().after_train_iter(runner(), 4, None, {"acc_seg": float("nan"), "loss": 1.0})


def test_image_files_of_both_batch_layouts() -> None:
    samples = [SimpleNamespace(img_path="a.png"), SimpleNamespace(img_path="b.png")]
    assert list(image_files({"inputs": [], "data_samples": samples})) == ["a.png", "b.png"]
    assert list(image_files([{"data_samples": sample} for sample in samples])) == ["a.png", "b.png"]
    assert list(image_files(None)) == []
