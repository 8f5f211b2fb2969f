"""Checkpoints are plain, appear in one step, and the old one outlives a failed write."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.fileio import get_file_backend
from mmengine.logging import HistoryBuffer

from mmclipdis.engine import checkpoint_io
from mmclipdis.engine.checkpoint_hook import ExactCheckpointHook
from mmclipdis.utils import whole_files
from tests.engine.toy import toy_config, train, weights

EVERY_TWO = {
    "train_cfg.max_iters": 6,
    "train_cfg.val_interval": 2,
    "default_hooks.checkpoint.interval": 2,
    "default_hooks.checkpoint.max_keep_ckpts": 1,
    "default_hooks.checkpoint.save_best": "acc",
    "default_hooks.checkpoint.rule": "greater",
}


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file() and path.suffix == ".pth"}


def test_newest_and_best_are_kept_and_readable_by_plain_torch(tmp_path: Path) -> None:
    train(toy_config(tmp_path / "run", **EVERY_TWO))
    assert files(tmp_path / "run") == {"iter_6.pth", "best_acc_iter_6.pth"}
    assert (tmp_path / "run" / "last_checkpoint").read_text().endswith("iter_6.pth")
    for name in files(tmp_path / "run"):
        checkpoint = torch.load(tmp_path / "run" / name, weights_only=True)
        assert checkpoint["meta"]["iter"] == 6
    assert not list((tmp_path / "run").glob(".*.tmp"))


def test_old_checkpoints_are_removed_only_after_the_new_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, str, frozenset[str]]] = []
    folder = tmp_path / "run"
    backend = checkpoint_io.AtomicLocalBackend

    def logged(name: str) -> Any:
        original = getattr(backend, name)

        def call(self: Any, *args: Any) -> Any:
            path = str(args[-1])
            events.append((name, os.path.basename(path), frozenset(files(folder))))
            return original(self, *args)

        return call

    for name in ("put", "remove"):
        monkeypatch.setattr(backend, name, logged(name))
    train(toy_config(folder, **EVERY_TWO))
    removals = [(name, before) for event, name, before in events if event == "remove"]
    assert {name for name, _ in removals} == {
        "iter_2.pth",
        "iter_4.pth",
        "best_acc_iter_2.pth",
        "best_acc_iter_4.pth",
    }
    for name, before in removals:
        step = int(name.removesuffix(".pth").split("_")[-1])
        assert name.replace(str(step), str(step + 2)) in before


class DiskFullError(OSError):
    pass


def test_a_failed_write_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, calls = tmp_path / "run", []

    def full(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):  # folders are synced, too
            calls.append(descriptor)
            if len(calls) == 2:
                raise DiskFullError("no space left")

    monkeypatch.setattr(whole_files.os, "fsync", full)
    config = toy_config(
        folder,
        **{
            "train_cfg.max_iters": 6,
            "train_cfg.val_interval": 100,
            "default_hooks.checkpoint.interval": 2,
            "default_hooks.checkpoint.max_keep_ckpts": 1,
        },
    )
    with pytest.raises(DiskFullError):
        train(config)
    assert files(folder) == {"iter_2.pth"}
    assert torch.load(folder / "iter_2.pth", weights_only=True)["meta"]["iter"] == 2
    assert (folder / "last_checkpoint").read_text().endswith("iter_2.pth")
    assert not list(folder.glob(".*.tmp"))


def test_atomic_backend_replaces_a_file_in_one_step(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.bin"
    backend = get_file_backend(str(target), backend_args={"backend": "atomic_local"})
    backend.put(b"first", str(target))
    backend.put(b"second", str(target))
    assert target.read_bytes() == b"second"
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]


def test_late_removal_spares_a_file_that_was_written_again(tmp_path: Path) -> None:
    from mmclipdis.engine.checkpoint_hook import _LateRemoval

    for name in ("old.pth", "same.pth"):
        (tmp_path / name).write_bytes(b"x")
    late = _LateRemoval(get_file_backend(str(tmp_path)))
    for name in ("old.pth", "same.pth"):
        late.remove(str(tmp_path / name))
    assert (tmp_path / "old.pth").exists()
    late.finish(keep={str(tmp_path / "same.pth")})
    assert files(tmp_path) == {"same.pth"}


def test_a_best_checkpoint_found_again_in_the_same_iteration_is_kept(tmp_path: Path) -> None:
    """A second validation writes the file of the first again, and then removes the old one."""
    run = train(toy_config(tmp_path / "run", **EVERY_TWO))
    (hook,) = (hook for hook in run.hooks if isinstance(hook, ExactCheckpointHook))
    hook._save_best_checkpoint(run, {"acc": 99.0})
    assert run.message_hub.get_info("best_score") == 99.0
    assert files(tmp_path / "run") == {"iter_6.pth", "best_acc_iter_6.pth"}


def test_histories_survive_as_plain_data(tmp_path: Path) -> None:
    config = toy_config(tmp_path / "run", **{"train_cfg.max_iters": 3})
    runner = train(config)
    saved = torch.load(tmp_path / "run" / "iter_3.pth", weights_only=True)
    packed = saved["message_hub"]["log_scalars"]["train/loss"]
    expected = runner.message_hub.get_scalar("train/loss").data[0].tolist()
    assert packed["log_history"].tolist() == expected
    hook = next(hook for hook in runner.hooks if isinstance(hook, ExactCheckpointHook))
    hook.after_load_checkpoint(runner, saved)
    history = saved["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(history, HistoryBuffer)
    assert history.data[0].tolist() == expected


def test_a_schedule_with_functions_in_its_state_is_saved_and_resumed(tmp_path: Path) -> None:
    def config(folder: str, iterations: int, **changes: Any) -> Any:
        (tmp_path / folder).mkdir(exist_ok=True)
        schedule = {"type": "OneCycleLR", "eta_max": 0.1, "total_steps": 4, "by_epoch": False}
        changes = {"train_cfg.max_iters": iterations, "train_cfg.val_interval": 100, **changes}
        changes = {"default_hooks.checkpoint.interval": 2, **changes, "param_scheduler": [schedule]}
        return toy_config(tmp_path / folder, **changes)

    whole = train(config("whole", 4))
    train(config("parts", 2))
    resumed = train(config("parts", 4, resume=True))
    assert torch.equal(weights(whole), weights(resumed))
    assert whole.optim_wrapper.get_lr() == resumed.optim_wrapper.get_lr()
