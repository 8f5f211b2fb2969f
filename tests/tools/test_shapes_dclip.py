"""tools/shapes_dclip.py: what it trains and tests, that it goes on where it stopped."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

import tools.shapes_dclip as dclip
from mmclipdis.apis import class_similarity
from mmclipdis.engine.results import read_results
from mmclipdis.models.projectors import Projectors
from mmclipdis.shapes.coco import Settings, write_dataset
from tests.tools.experiment_calls import record


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """Replaces training and testing; returns what was called."""

    def measure(_: list[str], number: int) -> dict[str, float]:
        return dict.fromkeys(("mAP", *dclip.SEGMENTATION), 1.0 + number % 3)

    def train(folder: Path) -> None:
        torch.manual_seed(zlib.crc32(folder.name.encode()))
        state = Projectors(64, arch="shapes-tiny").state_dict(prefix="projectors.")
        torch.save({"state_dict": state}, folder / "epoch_1.pth")

    write_dataset(tmp_path / "shapes", Settings(train=1, val=6))
    # nobody looks at the figures here; drawing them takes most of the time
    monkeypatch.setattr(class_similarity, "draw_class_similarity", lambda *_: None)
    return record(monkeypatch, dclip, tmp_path / "results.json", measure, train)


def run(tmp_path: Path, *more: str) -> None:
    folders = ["--work-dir", str(tmp_path / "work"), "--data", str(tmp_path / "shapes")]
    dclip.main([*folders, "--seeds", "0", "1", *more])


def test_every_row_is_written_with_its_spread(calls, tmp_path):
    run(tmp_path, "--write")
    results = read_results(tmp_path / "results.json")
    assert results["seeds"] == [0, 1]
    rows = {row["name"]: row["metrics"] for row in results["rows"]}
    assert list(rows) == ["CLIP", "CLIP, pooled as DCLIP", "ASL", "ASL + MFI"]
    assert set(rows["CLIP"]) == set(rows["ASL"]) == {"mAP", "mean_cosine", *dclip.SEGMENTATION}
    assert rows["CLIP"]["mean_cosine"] == pytest.approx(0.398, abs=0.01)
    assert 0 < rows["CLIP, pooled as DCLIP"]["mAP"] < 100
    for name in ("ASL", "ASL + MFI"):
        assert all(set(value) == {"mean", "std"} for value in rows[name].values())
        assert rows[name]["mean_cosine"]["std"] > 0


def test_only_the_row_without_mfi_leaves_it_out(calls, tmp_path):
    run(tmp_path)
    trainings = [call for call in calls if call[0] == "tools/train.py"]
    assert ["model.mfi=None" in call for call in trainings] == [True, True, False, False]


def test_finished_steps_are_not_repeated(calls, tmp_path):
    run(tmp_path)
    done = len(calls)
    calls.clear()
    run(tmp_path)
    assert done > 14
    assert [call[0] for call in calls] == ["tools/dataset_converters/shapes.py"]


def test_a_checkpoint_that_changed_is_measured_again(calls, tmp_path):
    run(tmp_path)
    calls.clear()
    checkpoint = tmp_path / "work" / "ASL_1" / "epoch_1.pth"
    torch.save({**torch.load(checkpoint, weights_only=True), "meta": {}}, checkpoint)
    run(tmp_path)
    tests = [call for call in calls if call[0] == "tools/test.py"]
    assert len(tests) == 2  # labels and segmentation
    assert all(str(checkpoint) in " ".join(map(str, call)) for call in tests)


def test_its_options_exist_in_the_configs(calls, tmp_path):
    run(tmp_path, "--epochs", "1")
    for call in calls[1:]:
        words = [str(word) for word in call]
        config = Config.fromfile(words[1])
        for option in words[words.index("--cfg-options") + 1 :]:
            key = option.split("=")[0].split(".")
            part: Any = config
            for name in key[:-1]:
                part = part[name]
            assert key[-1] in part, key
