"""Stands in for the trainings and tests of the tools/shapes_*.py, and records them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from mmclipdis.apis import experiments

Calls = list[tuple[Any, ...]]


def empty_checkpoint(folder: Path) -> None:
    """A checkpoint without weights, but whole."""
    torch.save({"state_dict": {}}, folder / "iter_1.pth")


def record(
    monkeypatch: pytest.MonkeyPatch,
    tool: ModuleType,
    out: Path,
    measure: Callable[[list[str], int], dict[str, float]],
    train: Callable[[Path], None] = empty_checkpoint,
) -> Calls:
    """Replaces training and testing; returns the list that the calls go to.

    Args:
        monkeypatch: Of pytest.
        tool: The module of the experiment, whose results go to ``out``.
        out: A file.
        measure: Words of a test, and the number of this call -> metrics.
        train: Leaves a checkpoint in the work folder of a training.
    """
    called: Calls = []

    def command(script: str, *words: object) -> None:
        called.append((script, *map(str, words)))
        if script == "tools/train.py":
            folder = Path(str(words[2]))
            folder.mkdir(parents=True, exist_ok=True)
            train(folder)

    def test(words: list[str]) -> dict[str, float]:
        called.append(("tools/test.py", *words))
        Path(words[words.index("--work-dir") + 1]).mkdir(parents=True, exist_ok=True)
        return measure(words, len(called))

    monkeypatch.setattr(experiments, "command", command)
    monkeypatch.setattr(experiments, "test", test)
    monkeypatch.setattr(tool, "OUT", out)
    return called
