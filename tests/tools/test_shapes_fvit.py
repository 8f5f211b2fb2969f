"""tools/shapes_fvit.py: what it trains and tests, that it goes on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

import tools.shapes_fvit as fvit
from mmclipdis.apis import experiments
from mmclipdis.engine.results import read_results
from tests.tools.experiment_calls import record

UNDISTORTED = "train_dataloader.dataset.pipeline.2.prob=0.0"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """Replaces training and testing; returns what was called."""

    def measure(words: list[str], _: int) -> dict[str, float]:
        value = 0.5 if "model.test_cfg.rcnn.score=fused" in words else 0.25
        return dict.fromkeys(fvit.METRICS.values(), value)

    return record(monkeypatch, fvit, tmp_path / "results.json", measure)


def run(tmp_path: Path, *more: str) -> None:
    folders = ["--work-dir", str(tmp_path / "work"), "--students", str(tmp_path / "students")]
    fvit.main([*folders, "--data", str(tmp_path / "shapes"), "--seeds", "0", "1", *more])


def test_every_row_is_written_with_its_spread(calls, tmp_path):
    run(tmp_path, "--write")
    results = read_results(tmp_path / "results.json")
    assert results["seeds"] == [0, 1]
    rows = {row["name"]: row["metrics"] for row in results["rows"]}
    assert {"VLM score", "detector score", "fused", "fused DeCLIP"} <= set(rows)
    assert rows["fused"]["AP50_novel"] == {"mean": 50.0, "std": 0.0}
    assert rows["detector score"]["AP50_all"] == {"mean": 25.0, "std": 0.0}


def test_a_detector_starts_from_the_student_of_its_seed(calls, tmp_path):
    run(tmp_path)
    trained = [call for call in calls if call[0] == "tools/train.py"]
    assert len(trained) == 2 * 4  # a student and three detectors for each seed
    for seed in (0, 1):
        words = next(c for c in trained if c[3].endswith(f"fvit_declip_{seed}"))
        student = tmp_path / "students" / f"DeCLIP_{seed}" / "iter_1.pth"
        assert f"model.backbone.encoder.init_cfg.checkpoint={student}" in words
        assert f"randomness.seed={seed}" in words


def test_one_detector_sees_things_in_their_own_colours(calls, tmp_path):
    run(tmp_path)
    trained = [call for call in calls if call[0] == "tools/train.py" and "fvit" in call[3]]
    found = {Path(call[3]).name for call in trained if UNDISTORTED in call}
    assert found == {"fvit_undistorted_0", "fvit_undistorted_1"}
    key, _, value = UNDISTORTED.rpartition("=")
    config = Config.fromfile(experiments.config_file("fvit"))
    config.merge_from_dict({key: float(value)})
    step = config.train_dataloader.dataset.pipeline[2]
    assert (step.type, step.prob) == ("RandomApply", 0.0)
    assert step.transforms[0].type == "PhotoMetricDistortion"


def test_a_second_run_repeats_nothing(calls, tmp_path):
    run(tmp_path)
    calls.clear()
    run(tmp_path)
    assert [call[0] for call in calls] == ["tools/dataset_converters/shapes.py"]
