"""Steps of an experiment are repeated when what they read has changed, and not before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmclipdis.apis import experiments


def test_a_training_is_repeated_for_another_file_not_for_another_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, given = tmp_path / "work", tmp_path / "boxes.json"
    folder.mkdir()
    calls: list[str] = []
    monkeypatch.setattr(experiments, "command", lambda script, *words: calls.append(script))

    def train(content: str) -> int:
        given.write_text(content)
        os.utime(given, ns=(len(calls), len(calls)))
        experiments.train("fvit", folder, [f"train_dataloader.dataset.pseudo_boxes={given}"], 0)
        return len(calls)

    assert [train("[1]"), train("[1]"), train("[2]"), train("[2]")] == [1, 1, 2, 2]
