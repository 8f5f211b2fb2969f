"""Mixed weights are evaluated and saved; training and resuming use the trained ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS, MODELS
from mmengine.runner import Runner

from mmclipdis.engine.checkpoint_io import read_checkpoint
from mmclipdis.engine.weight_ensemble_hook import UNMIXED, WeightEnsembleHook, mix_weights
from tests.engine.toy import ToyModel, toy_config, train, weights

ALPHA = 0.7
START = 0.25  # every weight of what init_weights() loads


@MODELS.register_module(force=True)
class LoadingModel(ToyModel):
    """Has its weights from init_weights(), as every model with an init_cfg."""

    def init_weights(self) -> None:
        for parameter in self.net.parameters():
            parameter.data.fill_(START)


@METRICS.register_module(force=True)
class WeightSpy(BaseMetric):
    """Notes a weight of the model as validation sees it."""

    model: Any = None
    seen: list[torch.Tensor] = []

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list[int]) -> dict[str, float]:
        WeightSpy.seen.append(WeightSpy.model.net[0].weight.detach().clone())
        return {"acc": float(len(WeightSpy.seen))}


def ensemble_config(folder: Path, **changes: Any) -> Any:
    hook = {"type": "WeightEnsembleHook", "alpha": ALPHA, "module": "net"}
    changes = {
        "custom_hooks": [hook],
        "val_evaluator": {"type": "WeightSpy"},
        "model": {"type": "LoadingModel"},
        **changes,
    }
    return toy_config(folder, **changes)


def spied(config: Any) -> Runner:
    runner = Runner.from_cfg(config)
    WeightSpy.model, WeightSpy.seen = runner.model, []
    runner.original = torch.full_like(runner.model.net[0].weight, START)
    runner.train()
    return runner


def test_golden_g15() -> None:
    one, zero = torch.tensor(1.0), torch.tensor(0.0)
    assert float(mix_weights(one, zero, 0.7)) == pytest.approx(0.7)
    assert float(mix_weights(one, zero, 1.0)) == 1.0


def test_training_does_not_notice(tmp_path: Path) -> None:
    plain = train(toy_config(tmp_path / "plain", model={"type": "LoadingModel"}))
    mixed = spied(ensemble_config(tmp_path / "mixed"))
    assert torch.equal(weights(plain), weights(mixed))


def test_validation_sees_the_mixed_weights(tmp_path: Path) -> None:
    runner = spied(ensemble_config(tmp_path))
    trained = runner.model.net[0].weight.detach()
    expected = ALPHA * trained + (1 - ALPHA) * runner.original
    torch.testing.assert_close(WeightSpy.seen[-1], expected)
    assert not torch.allclose(WeightSpy.seen[-1], trained)


def test_checkpoints_hold_both_and_the_mixed_ones_count(tmp_path: Path) -> None:
    runner = spied(ensemble_config(tmp_path))
    saved = read_checkpoint(str(tmp_path / "iter_20.pth"))
    trained = runner.model.net[0].weight.detach()
    expected = ALPHA * trained + (1 - ALPHA) * runner.original
    torch.testing.assert_close(saved["state_dict"]["net.0.weight"], expected)
    assert torch.equal(saved[UNMIXED]["net.0.weight"], trained)
    other = Runner.from_cfg(ensemble_config(tmp_path / "test"))
    other.load_checkpoint(str(tmp_path / "iter_20.pth"))
    torch.testing.assert_close(other.model.net[0].weight.detach(), expected)


def test_a_best_checkpoint_saved_inside_validation_is_mixed_once(tmp_path: Path) -> None:
    config = ensemble_config(tmp_path)
    config.default_hooks.checkpoint.save_best = "acc"
    runner = spied(config)
    best = next(tmp_path.glob("best_acc_iter_20.pth"))
    expected = ALPHA * runner.model.net[0].weight.detach() + (1 - ALPHA) * runner.original
    torch.testing.assert_close(read_checkpoint(str(best))["state_dict"]["net.0.weight"], expected)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = spied(ensemble_config(tmp_path / "whole"))
    seen = WeightSpy.seen[-1]
    start = str(tmp_path / "whole" / "iter_10.pth")
    resumed = spied(ensemble_config(tmp_path / "resumed", load_from=start, resume=True))
    assert float((weights(whole) - weights(resumed)).abs().max()) == 0.0
    assert torch.equal(WeightSpy.seen[-1], seen)


def test_after_a_validation_that_broke_off_the_trained_weights_are_trained_on(
    tmp_path: Path,
) -> None:
    runner = spied(ensemble_config(tmp_path))
    hook = next(h for h in runner.hooks if isinstance(h, WeightEnsembleHook))
    trained = weights(runner)
    hook.before_train(runner)
    hook.before_val_epoch(runner)
    assert not torch.equal(weights(runner), trained)
    hook.before_train_iter(runner, 0)
    assert torch.equal(weights(runner), trained)


def test_resuming_a_checkpoint_without_the_trained_weights_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(toy_config(tmp_path / "plain"))
    start = str(tmp_path / "plain" / "iter_10.pth")
    runner = Runner.from_cfg(ensemble_config(tmp_path / "mixed", load_from=start, resume=True))
    said: list[str] = []
    runner.logger.warning = lambda text, *_: said.append(text)  # type: ignore[method-assign]
    WeightSpy.model = runner.model
    runner.train()
    assert any("written without WeightEnsembleHook" in text for text in said)


def test_validation_alone_leaves_the_weights(tmp_path: Path) -> None:
    runner = Runner.from_cfg(ensemble_config(tmp_path))
    WeightSpy.model, WeightSpy.seen = runner.model, []
    runner.model.net[0].weight.data.add_(1)
    before = runner.model.net[0].weight.detach().clone()
    runner.val()
    assert torch.equal(WeightSpy.seen[-1], before)


@pytest.mark.parametrize("alpha", [-0.1, 1.5])
def test_alpha_outside_the_unit_interval_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"alpha must lie in \[0, 1\]"):
        WeightEnsembleHook(alpha)


def test_an_unknown_part_names_those_there_are(tmp_path: Path) -> None:
    config = ensemble_config(tmp_path)
    config.custom_hooks[0].module = "student"
    with pytest.raises(ValueError, match="LoadingModel has no such part; it has .*net"):
        train(config)
