"""tools/shapes_infoclip.py: what it trains and tests, that it goes on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config, DictAction
from mmseg.registry import MODELS

import tools.shapes_infoclip as infoclip
from mmclipdis.engine.results import read_results
from tests.tools.experiment_calls import record

VALUE = {"mIoU": 5.0, "mIoU_base": 6.0, "mIoU_novel": 7.0, "mAcc": 8.0}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """Replaces training and testing; returns what was called."""

    def measure(_: list[str], number: int) -> dict[str, float]:
        return {name: value + number % 3 for name, value in VALUE.items()}

    return record(monkeypatch, infoclip, tmp_path / "results.json", measure)


def run(tmp_path: Path, *more: str) -> None:
    infoclip.main(["--work-dir", str(tmp_path / "work"), "--seeds", "0", "1", *more])


def test_every_row_is_written_with_its_spread(calls, tmp_path):
    run(tmp_path, "--write")
    results = read_results(tmp_path / "results.json")
    assert results["seeds"] == [0, 1]
    rows = {row["name"]: row["metrics"] for row in results["rows"]}
    assert list(rows) == ["CAT-Seg", "KL", "L_d", "L_c + MSE", "InfoCLIP", "InfoCLIP, weights 0.1"]
    for metrics in rows.values():
        assert list(metrics) == ["mIoU", "mIoU_base", "mIoU_novel"]
        assert all(set(value) == {"mean", "std"} for value in metrics.values())


def test_finished_steps_are_not_repeated(calls, tmp_path):
    run(tmp_path)
    assert len(calls) == 1 + 2 * 2 * len(infoclip.ROWS)
    calls.clear()
    run(tmp_path)
    assert [call[0] for call in calls] == ["tools/dataset_converters/shapes.py"]


def test_its_options_make_the_models_that_the_rows_name(calls, tmp_path):
    run(tmp_path, "--iters", "1")
    found: set[Any] = set()
    for call in calls:
        if call[0] != "tools/train.py":
            continue
        words = [str(word) for word in call]
        config = Config.fromfile(words[1])
        assert (config.train_dataloader.batch_size, config.train_cfg.max_iters) == (4, 250)
        options = [word.split("=", 1) for word in words[words.index("--cfg-options") + 1 :]]
        values = {k: DictAction._parse_iterable(v) for k, v in options if k.startswith("model.")}
        config.merge_from_dict(values)
        config.model.get("segmentor", config.model).data_preprocessor = None
        model = MODELS.build(config.model)
        if config.model.type == "CATSeg":
            found.add("CAT-Seg")
            continue
        distillation = model.distillation
        found.add((distillation["kind"], model.lpam.relation, model.compression is not None))
        strength = distillation["weight"] * distillation["temperature"] ** 2
        assert strength == pytest.approx(0.1 if "weights_0.1" in words[3] else 1)
    assert found == {
        "CAT-Seg",
        ("kl", "cosine", False),
        ("mi", "cosine", False),
        ("mse", "lpam", True),
        ("mi", "lpam", True),
    }
