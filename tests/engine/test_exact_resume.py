"""A resumed run equals an uninterrupted one to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import IterBasedTrainLoop

from tests.engine.toy import toy_config, train, weights


def assert_equal_runs(whole: Any, resumed: Any) -> None:
    assert float((weights(whole) - weights(resumed)).abs().max()) == 0.0
    first, second = (run.optim_wrapper.state_dict()["state"] for run in (whole, resumed))
    for key, state in first.items():
        for name, value in state.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(second[key][name])), name
    assert whole.optim_wrapper.get_lr() == resumed.optim_wrapper.get_lr()
    history = "train/loss"
    one, two = (run.message_hub.get_scalar(history).data for run in (whole, resumed))
    assert one[0].tolist() == two[0].tolist() and one[1].tolist() == two[1].tolist()
    one, two = whole.final_state, resumed.final_state
    assert torch.equal(one["torch"], two["torch"])
    assert torch.equal(one["python"][1], two["python"][1])
    assert torch.equal(one["numpy"][1], two["numpy"][1])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("sampler", ["InfiniteSampler", "DefaultSampler"])
def test_ten_and_ten_iterations_equal_twenty(tmp_path: Path, workers: int, sampler: str) -> None:
    changes = {
        "train_dataloader.num_workers": workers,
        "train_dataloader.sampler.type": sampler,
    }
    whole = train(toy_config(tmp_path / "whole", **changes))
    resumed = train(
        toy_config(
            tmp_path / "resumed",
            **changes,
            load_from=str(tmp_path / "whole" / "iter_10.pth"),
            resume=True,
        )
    )
    assert resumed.iter == 20
    assert_equal_runs(whole, resumed)
    assert resumed.model.seen[-30:] == whole.model.seen[-30:]


def run_as_the_fork(loop: IterBasedTrainLoop) -> None:
    """How the fork's ``IterBasedTrainLoop.run`` gets to its place, with its switch to stay."""
    for point in ("before_train", "before_train_epoch"):
        loop.runner.call_hook(point)
    if not loop.fast_forward_on_resume:
        loop.dataloader_iterator.skip_iter(loop._iter)
    while loop._iter < loop._max_iters:
        loop.runner.model.train()
        loop.run_iter(next(loop.dataloader_iterator))
    for point in ("after_train_epoch", "after_train"):
        loop.runner.call_hook(point)


def test_a_run_continues_exactly_as_the_fork_skips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IterBasedTrainLoop, "run", run_as_the_fork)
    monkeypatch.setattr(IterBasedTrainLoop, "fast_forward_on_resume", True, raising=False)
    whole = train(toy_config(tmp_path / "whole"))
    start = str(tmp_path / "whole" / "iter_10.pth")
    resumed = train(toy_config(tmp_path / "resumed", load_from=start, resume=True))
    assert resumed.iter == 20
    assert_equal_runs(whole, resumed)


def test_a_run_that_ended_early_continues_exactly(tmp_path: Path) -> None:
    whole = train(toy_config(tmp_path / "whole"))
    train(toy_config(tmp_path / "parts", **{"train_cfg.max_iters": 10}))
    resumed = train(toy_config(tmp_path / "parts", resume=True))
    assert_equal_runs(whole, resumed)


def test_a_run_without_a_seed_continues_exactly(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"randomness": {"seed": None}}
    whole = train(toy_config(tmp_path / "whole", **changes))
    start = str(tmp_path / "whole" / "iter_10.pth")
    resumed = train(toy_config(tmp_path / "resumed", **changes, load_from=start, resume=True))
    assert_equal_runs(whole, resumed)


def test_epochs_continue_exactly(tmp_path: Path) -> None:
    changes = {
        "train_cfg": {"type": "ExactEpochBasedTrainLoop", "max_epochs": 4, "val_interval": 1},
        "train_dataloader.sampler": {"type": "DefaultSampler", "shuffle": True},
        "train_dataloader.num_workers": 2,
        "train_dataloader.persistent_workers": True,
        "param_scheduler": [{"type": "MultiStepLR", "milestones": [1, 3], "gamma": 0.5}],
        "default_hooks": {"checkpoint": {"type": "ExactCheckpointHook", "interval": 2}},
    }
    whole = train(toy_config(tmp_path / "whole", **changes))
    start = str(tmp_path / "whole" / "epoch_2.pth")
    resumed = train(toy_config(tmp_path / "resumed", **changes, load_from=start, resume=True))
    assert resumed.epoch == 4
    assert_equal_runs(whole, resumed)


def test_a_best_checkpoint_saved_inside_validation_does_not_disturb(tmp_path: Path) -> None:
    plain = train(toy_config(tmp_path / "plain"))
    hook = {"default_hooks.checkpoint.save_best": "acc", "default_hooks.checkpoint.rule": "greater"}
    whole = train(toy_config(tmp_path / "whole", **hook))
    start = str(tmp_path / "whole" / "iter_10.pth")
    resumed = train(toy_config(tmp_path / "resumed", **hook, load_from=start, resume=True))
    assert_equal_runs(plain, whole)
    assert_equal_runs(whole, resumed)


def test_validation_does_not_change_training(tmp_path: Path) -> None:
    often = train(toy_config(tmp_path / "often", **{"train_cfg.val_interval": 2}))
    never = train(toy_config(tmp_path / "never", **{"train_cfg.val_interval": 1000}))
    assert torch.equal(weights(often), weights(never))


def test_batches_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    alone = train(toy_config(tmp_path / "alone"))
    two = train(toy_config(tmp_path / "two", **{"train_dataloader.num_workers": 2}))
    assert torch.equal(weights(alone), weights(two))


def test_loading_without_resume_leaves_the_generators_alone(tmp_path: Path) -> None:
    train(toy_config(tmp_path / "first", **{"train_cfg.max_iters": 10}))
    start = str(tmp_path / "first" / "iter_10.pth")
    tuned = train(toy_config(tmp_path / "tuned", load_from=start))
    assert tuned.iter == 20
    assert tuned.train_loop.random_state is None


def test_stock_loop_is_told_that_it_resumes_inexactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"train_cfg.type": "IterBasedTrainLoop"}
    first = train(toy_config(tmp_path / "runs", **{**changes, "train_cfg.max_iters": 10}))
    messages: list[str] = []
    monkeypatch.setattr(type(first.logger), "warning", lambda self, text, *a: messages.append(text))
    train(toy_config(tmp_path / "runs", **changes, resume=True))
    assert any("not exactly" in text for text in messages)
