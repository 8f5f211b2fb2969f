"""tools/shapes_ovdquo.py: what it trains and tests, that it goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

import tools.shapes_ovdquo as ovdquo
from mmclipdis.apis import experiments
from mmclipdis.engine.results import read_results
from mmclipdis.utils.places import RESULTS
from tests.tools.experiment_calls import record

FILE = "train_dataloader.dataset.pseudo_boxes="


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """Replaces training and testing; returns what was called."""

    def measure(words: list[str], _: int) -> dict[str, float]:
        value = 0.25 if "model.text_queries=False" in words else 0.5
        return dict.fromkeys(ovdquo.METRICS.values(), value)

    return record(monkeypatch, ovdquo, tmp_path / "results.json", measure)


def run(tmp_path: Path, *more: str) -> None:
    folders = ["--work-dir", str(tmp_path / "work"), "--students", str(tmp_path / "students")]
    folders += ["--fvit", str(tmp_path / "fvit")]
    ovdquo.main([*folders, "--data", str(tmp_path / "shapes"), "--seeds", "0", "1", *more])


def trained(calls: list[tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    return {Path(call[3]).name: call for call in calls if call[0] == "tools/train.py"}


def test_every_row_is_written_beside_that_of_f_vit(calls, tmp_path):
    run(tmp_path, "--write")
    results = read_results(tmp_path / "results.json")
    rows = {row["name"]: row["metrics"] for row in results["rows"]}
    assert [*rows] == [*ovdquo.ROWS, "F-ViT"]
    assert rows["OV-DQUO"]["AP50_novel"] == {"mean": 50.0, "std": 0.0}
    assert rows["without text queries"]["AP50_all"] == {"mean": 25.0, "std": 0.0}
    table = json.loads((RESULTS / "shapes_fvit.json").read_text())["rows"]
    assert rows["F-ViT"] == next(row["metrics"] for row in table if row["name"] == "fused")


def test_unknown_things_are_proposals_of_one_f_vit(calls, tmp_path):
    run(tmp_path)
    made = [call for call in calls if call[0] == "tools/dataset_converters/pseudo_boxes.py"]
    assert len(made) == 1 and made[0][2] == str(tmp_path / "fvit" / "fvit_0" / "iter_1.pth")
    out = next(after for word, after in zip(made[0], made[0][1:]) if word == "--out")
    with_file = {name for name, call in trained(calls).items() if f"{FILE}{out}" in call}
    assert with_file == {
        f"{name}_{seed}"
        for name in ("OV-DQUO", "without_text_queries", "OV-DQUO_DeCLIP")
        for seed in (0, 1)
    }


def test_a_detector_starts_from_the_student_of_its_seed(calls, tmp_path):
    run(tmp_path)
    for seed in (0, 1):
        words = trained(calls)[f"OV-DQUO_DeCLIP_{seed}"]
        student = tmp_path / "students" / f"DeCLIP_{seed}" / "iter_1.pth"
        assert f"model.backbone.encoder.init_cfg.checkpoint={student}" in words
        assert f"randomness.seed={seed}" in words


def test_the_options_are_those_of_the_config(calls, tmp_path):
    run(tmp_path)
    config = Config.fromfile(experiments.config_file("ovdquo"))
    assert config.model.get("text_queries", True)
    assert config.train_dataloader.dataset.get("pseudo_boxes") is None
    assert any("model.text_queries=False" in c for c in trained(calls)["without_text_queries_0"])
