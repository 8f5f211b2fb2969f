"""What is run for a row, without running it; what is read back. A second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmclipdis.apis import experiments
from mmclipdis.apis.claims import measuring
from mmclipdis.apis.claims.measures import share_of_few
from mmclipdis.apis.claims.measuring import Places, kept_runs, measure, rows_of
from mmclipdis.apis.claims.sheet import Claim, Experiment, Row, Sheet, Step
from mmclipdis.engine.results import write_results

LABELS = Step(metrics={"ours": "mAP"})
MAP = Step("dclip_segment", ("a.b={checkpoint}",), (), {"mIoU": "mIoU"})
EXPERIMENT = Experiment(
    "toy",
    "toys",
    ("shapes",),
    Step("dclip", ("all=1",), ("--keep", "{work}/kept")),
    (LABELS, MAP),
    {
        "plain": Row(Step()),
        "other / x": Row(Step(options=("b=2",))),
        "as plain": Row(Step(), (MAP,), trained_as="plain"),
        "alone": Row(Step(), (Step("dclip_zero_shot", (), (), {"ours": "mAP"}),), untrained=True),
    },
)
Calls = list[tuple[str, list[str]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    """What would have been run: the name of the tool and its words."""
    found: Calls = []

    def command(script: str, *words: object) -> None:
        found.append((Path(script).stem, list(map(str, words))))
        if script == "tools/train.py":
            folder = Path(str(words[2]))
            folder.mkdir(parents=True, exist_ok=True)
            torch.save({"state_dict": {}}, folder / "iter_1.pth")

    def test(words: list[str]) -> dict[str, float]:
        found.append(("test", words))
        Path(words[words.index("--work-dir") + 1]).mkdir(parents=True, exist_ok=True)
        return {"mAP": 90.0, "mIoU": 40.0}

    monkeypatch.setattr(experiments, "command", command)
    monkeypatch.setattr(experiments, "test", test)
    measuring._draw.cache_clear()
    return found


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], dict[str, float]]:
    """Measures a row with seed 3."""
    places = Places(tmp_path / "data", tmp_path / "work")
    return lambda row: measure(EXPERIMENT, row, 3, places, {"shapes": ("--train", "5")})


def test_a_row_is_drawn_trained_and_tested(calls: Calls, run: Any, tmp_path: Path) -> None:
    assert run("other / x") == {"ours": 90.0, "mIoU": 40.0}
    (draw, train, labels, segment) = calls
    assert draw == ("shapes", [str(tmp_path / "data"), "--train", "5"])
    folder = tmp_path / "work" / "toy" / "other_x_3"
    assert train[1][0].endswith("configs/shapes/dclip.py") and train[1][2] == str(folder)
    assert train[1][3:5] == ["--keep", str(tmp_path / "work" / "toy" / "kept")]
    assert {"all=1", "b=2", "randomness.seed=3"} <= set(train[1])
    checkpoint = str(folder / "iter_1.pth")
    assert labels[1][1] == checkpoint and "b=2" in labels[1]
    assert f"a.b={checkpoint}" in segment[1] and checkpoint not in segment[1]
    assert "b=2" not in segment[1]  # another config has other fields


def test_a_row_may_test_the_training_of_another(calls: Calls, run: Any, tmp_path: Path) -> None:
    run("plain")
    assert run("as plain") == {"mIoU": 40.0}
    assert [name for name, _ in calls] == ["shapes", "train", "test", "test", "test"]
    checkpoint = tmp_path / "work" / "toy" / "plain_3" / "iter_1.pth"
    assert f"a.b={checkpoint}" in calls[-1][1]


def test_a_row_without_training_is_the_same_for_all_seeds(calls: Calls, run: Any) -> None:
    assert run("alone") == {"ours": 90.0}
    assert [name for name, _ in calls] == ["shapes", "test"]
    assert calls[-1][1][1] == "--work-dir" and calls[-1][1][2].endswith("toy/alone/test_0")


def test_runs_are_read_back_by_row_metric_and_seed(tmp_path: Path) -> None:
    path = tmp_path / "claims.json"
    names = {"toy | plain | seed 0": 1.0, "toy | plain | seed 2": 2.0, "toys | plain | seed 0": 9.0}
    rows = [{"name": name, "metrics": {"ours": value}} for name, value in names.items()]
    rows.append({"name": "toy | a row that is gone | seed 0", "metrics": {"ours": 5.0}})
    write_results(path, [*rows, {"name": "claim | toy/one", "metrics": {"verdict": "holds"}}])
    table = kept_runs(path, EXPERIMENT)
    assert set(table) == {"plain"} and table["plain"]["ours"].runs == {0: 1.0, 2: 2.0}
    assert kept_runs(tmp_path / "none.json", EXPERIMENT) == {}


def test_a_table_that_lacks_a_row_is_named() -> None:
    file, orders = "results/shapes_declip.json", ("mIoU_csa: DeCLIP > plan",)
    claim = Claim("toy/one", "A paper", "text", (), orders, results=file)
    with pytest.raises(ValueError, match="claim toy/one: results/shapes_declip.json has no mIoU_c"):
        rows_of(claim, Sheet({}, {}, {}, {}), Path("none.json"))


def test_the_share_of_a_few_patches() -> None:
    alike = torch.full((40, 40), 1 / 40)
    assert float(share_of_few(alike)) == pytest.approx(0.05)
    rng = np.random.default_rng(0)
    weights = torch.from_numpy(rng.random((40, 40)))
    weights /= weights.sum(1, keepdim=True)
    received = sorted((float(sum(weights[:, j])) for j in range(40)), reverse=True)
    assert float(share_of_few(weights)) == pytest.approx(sum(received[:2]) / sum(received))
    assert float(share_of_few(torch.eye(3))) == pytest.approx(1 / 3)  # at least one
