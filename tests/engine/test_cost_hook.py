"""The cost of a test: seconds without the first image, memory, parameters, beside its metrics."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from mmclipdis.engine import cost_hook
from mmclipdis.engine.cost_hook import CostHook, peak_memory


def run(path: Path, times: list[float], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A test of batches of two images which take so long."""
    runner: Any = SimpleNamespace(model=nn.Linear(3, 2))
    clock = iter([edge for took in times for edge in (0.0, took)])
    monkeypatch.setattr(cost_hook, "_now", lambda _: next(clock))
    hook = CostHook(str(path))
    hook.before_test(runner)
    for index in range(len(times)):
        hook.before_test_iter(runner, index)
        hook.after_test_iter(runner, index, None, [1, 2])
    hook.after_test_epoch(runner, {"mIoU": 12.5})
    return json.loads(path.read_text())


def test_the_first_images_are_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(tmp_path / "cost.json", [9.0, 1.0, 3.0], monkeypatch)
    assert found["seconds"] == 1.0 and found["images"] == 6
    assert found["metrics"] == {"mIoU": 12.5} and found["parameters"] == 8
    assert (found["device"], found["memory_of"]) == ("cpu", "process")


def test_a_single_batch_is_timed_with_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tmp_path / "cost.json", [4.0], monkeypatch)["seconds"] == 2.0


def test_memory_is_that_of_the_process_in_mb() -> None:
    held, of = peak_memory(torch.device("cpu"))
    assert of == "process" and 50 < held < 1e5
