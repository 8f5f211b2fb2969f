"""tools/claims.py: what it measures, keeps and writes; the page of the repository. Two seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tools.claims as tool
from mmclipdis.apis.claims.page import as_rows, judged, page, paper_rows
from mmclipdis.apis.claims.sheet import sheet
from mmclipdis.engine.results import read_results
from tests.tools.experiment_calls import record

TRAINED = "catseg/tuned"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """Replaces training and testing; returns what was called. Nothing of the repository changes."""

    def measure(_: list[str], number: int) -> dict[str, float]:
        return dict.fromkeys(("mIoU", "mIoU_base", "mIoU_novel"), 40.0 + number)

    monkeypatch.setattr(tool, "PAGE", tmp_path / "claims.md")
    return record(monkeypatch, tool, tmp_path / "claims.json", measure)


def run(tmp_path: Path, *words: str) -> None:
    places = ["--data", str(tmp_path / "data"), "--work-dir", str(tmp_path / "work")]
    tool.main([*places, *words])


def test_the_page_and_the_verdicts_are_made_from_the_results() -> None:
    known = sheet()
    found = judged(known, tool.OUT, known.claims)
    assert tool.PAGE.read_text() == page(found, known, tool.OUT), (
        "run tools/claims.py --write --judge"
    )
    kept = {row["name"]: row["metrics"] for row in read_results(tool.OUT)["rows"]}
    for row in [*paper_rows(found, known), *as_rows(found)]:
        assert kept[str(row["name"])] == row["metrics"], "run tools/claims.py --write --judge"


def test_every_row_of_a_claim_is_trained_and_tested_once_a_seed(calls, tmp_path):
    run(tmp_path, "--only", TRAINED, "--write", "--seeds", "0", "1")
    trainings = [call for call in calls if call[0] == "tools/train.py"]
    assert len(trainings) == 6
    assert all("train_cfg.val_interval=100000" in call for call in trainings)
    assert {word for call in trainings for word in call if "seed" in word} == {
        "randomness.seed=0", "randomness.seed=1"
    }  # fmt: skip
    tests = [call for call in calls if call[0] == "tools/test.py"]
    assert len(tests) == 6 and all("model.test_cfg.mode=whole" in call for call in tests)
    assert all(call[2].endswith("iter_1.pth") for call in tests)
    rows = [row["name"] for row in read_results(tmp_path / "claims.json")["rows"]]
    assert "tuned | q and v | seed 1" in rows and f"claim | {TRAINED}" in rows
    assert (tmp_path / "claims.md").read_text().startswith("# Claims of the papers")


def test_what_is_in_the_table_is_not_measured_again(calls, tmp_path):
    run(tmp_path, "--only", TRAINED, "--write", "--seeds", "0")
    before = read_results(tmp_path / "claims.json")["rows"]
    count = len(calls)
    run(tmp_path, "--only", TRAINED, "--write", "--seeds", "0")
    assert len(calls) == count
    run(tmp_path, "--only", TRAINED, "--write", "--seeds", "2")
    after = read_results(tmp_path / "claims.json")["rows"]
    assert len(calls) > count and len(after) == len(before) + 3


def test_nothing_is_run_unless_it_is_asked_for(calls, tmp_path, capsys):
    run(tmp_path)
    run(tmp_path, "--write", "--judge")
    assert calls == []
    assert f"{TRAINED}: not run yet" in capsys.readouterr().out
    assert (tmp_path / "claims.md").exists() and (tmp_path / "claims.json").exists()


def test_words_of_a_method_are_all_its_claims(calls, tmp_path, capsys):
    run(tmp_path, "--only", "infoclip", TRAINED)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 3 and lines[-1].startswith(TRAINED)
    assert all(line.startswith(("infoclip/", TRAINED)) for line in lines)


def test_an_unknown_claim_is_named(calls, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, "--only", "clearclip/ordr")
    assert (
        "--only: no claim 'clearclip/ordr'; did you mean clearclip/order" in capsys.readouterr().err
    )


def test_judging_is_for_writing(calls, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, "--run", "--judge")
    assert "--judge runs nothing: leave out --run" in capsys.readouterr().err
