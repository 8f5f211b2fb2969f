"""tools/shapes_declip.py: what it trains and tests, that it goes on where it stopped."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

import tools.shapes_declip as declip
from mmclipdis.apis import experiments
from mmclipdis.engine.results import read_results
from tests.paths import ROOT
from tests.tools.experiment_calls import record

VALUE = {"rois_thing_macc1": 1.0, "rois_stuff_macc1": 2.0, "mIoU": 5.0, "mIoU_base": 6.0}
VALUE |= {"maskpool_thing_macc1": 3.0, "maskpool_stuff_macc1": 4.0, "mIoU_novel": 7.0}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """Replaces training and testing; returns what was called."""

    def measure(_: list[str], number: int) -> dict[str, float]:
        return {name: value + number % 3 for name, value in VALUE.items()}

    return record(monkeypatch, declip, tmp_path / "results.json", measure)


def run(tmp_path: Path, *more: str) -> None:
    declip.main(["--work-dir", str(tmp_path / "work"), "--seeds", "0", "1", *more])


def test_every_row_is_written_with_its_spread(calls, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [declip.__file__, "--write"])
    run(tmp_path, "--write")
    results = read_results(tmp_path / "results.json")
    assert results["seeds"] == [0, 1]
    rows = {row["name"]: row["metrics"] for row in results["rows"]}
    assert list(rows) == ["plain", *declip.DISTILLED, *declip.CATSEG_ROWS]
    assert set(rows["DeCLIP"]) == {*declip.REGIONS, "mIoU_csa", "mIoU_qq"}
    assert isinstance(rows["plain"]["mIoU_csa"], float)
    for name in [*declip.DISTILLED, *declip.CATSEG_ROWS]:
        assert all(set(value) == {"mean", "std"} for value in rows[name].values())


def test_finished_steps_are_not_repeated(calls, tmp_path):
    run(tmp_path)
    done = len(calls)
    calls.clear()
    run(tmp_path)
    assert done > 20
    assert [call[0] for call in calls] == ["tools/dataset_converters/shapes.py"]
    run(tmp_path, "--data", str(tmp_path))  # other data: everything again
    assert len(calls) == 1 + done


def test_cat_seg_starts_from_the_student_of_its_seed(calls, tmp_path):
    run(tmp_path)
    starts = [
        str(word)
        for call in calls
        for word in call
        if call[0] == "tools/train.py" and "image_encoder.init_cfg.checkpoint" in str(word)
    ]
    assert [s.split("=")[1] for s in starts] == [
        str(tmp_path / "work" / f"DeCLIP_{seed}" / "iter_1.pth") for seed in (0, 1)
    ]


def test_its_options_exist_in_the_configs(calls, tmp_path):
    run(tmp_path, "--iters", "1")
    for call in calls[1:]:
        words = [str(word) for word in call]
        config = Config.fromfile(ROOT / words[1])
        for option in words[words.index("--cfg-options") + 1 :]:
            key = option.split("=")[0].split(".")
            part: Any = config
            for name in key[:-1]:
                part = part[name]
            assert key[-1] in part or key[-1] in ("any_readout", "data_root", "context_from"), key


def test_the_mean_and_the_deviation_of_the_sample():
    table = experiments.spread([{"a": 1.0}, {"a": 2.0}, {"a": 6.0}])
    assert table == {"a": {"mean": 3.0, "std": pytest.approx(2.65, abs=0.01)}}
    assert json.dumps(experiments.spread([{"a": 1.234}])) == '{"a": 1.23}'
