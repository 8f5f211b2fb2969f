"""The page says what was measured, and is what the results make of it. A second."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmclipdis.apis.claims.measuring import RUN
from mmclipdis.apis.claims.page import Judged, as_rows, judged, page, paper_rows
from mmclipdis.apis.claims.sheet import Claim, Experiment, Quote, Row, Sheet, Step
from mmclipdis.apis.claims.verdict import Verdict
from mmclipdis.engine import results

QUOTES = (Quote("A", "mIoU Far", 7.5, "A paper"), Quote("B", "mIoU Far", 3.0, "A paper"))


def toy(**changes: object) -> Sheet:
    """One experiment and one claim about its rows A and B."""
    told: dict[str, object] = {
        "name": "toy/wins",
        "paper": "A paper",
        "text": "A wins.",
        "published": QUOTES,
        "orders": ("mIoU: A > B",),
        "experiment": "toy",
        **changes,
    }
    rows = {"A": Row(Step()), "B": Row(Step())}
    experiment = Experiment("toy", "two rows", ("shapes",), None, (), rows)
    claim = Claim(**told)  # type: ignore[arg-type]
    return Sheet({claim.name: claim}, {"toy": experiment}, {"shapes": ()}, {"A paper": "it wins"})


def write(path: Path, **values: list[float]) -> None:
    """Runs of the rows in a results file; a list has a value of each seed."""
    rows = [
        {"name": RUN.format(experiment="toy", row=row, seed=seed), "metrics": {"mIoU": value}}
        for row, runs in values.items()
        for seed, value in enumerate(runs)
    ]
    results.write_results(path, rows, command="toy")


def verdict(tmp_path: Path, sheet: Sheet, **values: list[float]) -> Judged:
    path = tmp_path / "claims.json"
    if values:
        write(path, **values)
    (found,) = judged(sheet, path, sheet.claims)
    return found


def test_a_claim_that_holds(tmp_path: Path) -> None:
    found = verdict(tmp_path, toy(), A=[50.0, 51.0, 52.0], B=[40.0, 41.5, 41.0])
    assert found.verdict is Verdict.HOLDS
    text = page([found], toy(), tmp_path / "claims.json")
    assert "| [toy/wins](#toywins) | A paper | holds |" in text
    assert "| A | 7.5 | 51.0 ± 1.00 |" in text
    assert "| B | 3 | 40.8 ± 0.76 |" in text
    assert "- mIoU: A > B: holds (+10.17, ± 0.76)" in text
    assert "Published: A paper." in text
    assert "python tools/claims.py --only toy/wins --write" in text
    (row,) = as_rows([found])
    assert row == {
        "name": "claim | toy/wins",
        "metrics": {"verdict": "holds", "mIoU: A > B": {"mean": 10.167, "std": 0.764}},
    }


def test_a_paper_has_a_line_and_its_counts(tmp_path: Path) -> None:
    found = verdict(tmp_path, toy())
    (row,) = paper_rows([found], toy())
    assert row["name"] == "A paper"
    assert row["metrics"] == {
        "claim": "it wins",
        "holds": 0,
        "does_not_hold": 0,
        "undecided": 0,
        "cannot_be_seen_here": 0,
        "not_run_yet": 1,
    }


def test_nothing_is_claimed_that_was_not_run(tmp_path: Path) -> None:
    found = verdict(tmp_path, toy())
    assert found.verdict is Verdict.NOT_RUN
    text = page([found], toy(), tmp_path / "claims.json")
    assert "| [toy/wins](#toywins) | A paper | not run yet |" in text
    assert "| A | 7.5 | - |" in text
    assert "- mIoU: A > B: not run yet" in text
    assert as_rows([found])[0]["metrics"] == {"verdict": "not run yet"}


def test_a_claim_that_holds_in_part_says_how_much_of_it(tmp_path: Path) -> None:
    sheet = toy(orders=("mIoU: A > B", "mIoU: B > A"))
    found = verdict(tmp_path, sheet, A=[5.0, 5.1, 5.2], B=[4.0, 4.1, 4.2])
    assert found.verdict is Verdict.FAILS
    assert "**does not hold; 1 of its 2 orders does**" in page(
        [found], sheet, tmp_path / "claims.json"
    )


def test_rows_of_fewer_seeds_say_so(tmp_path: Path) -> None:
    found = verdict(tmp_path, toy(), A=[50.0, 51.0], B=[40.0])
    assert found.verdict is Verdict.UNDECIDED
    text = page([found], toy(), tmp_path / "claims.json")
    assert "| A | 7.5 | 50.5 ± 0.71 (2 seeds) |" in text and "| B | 3 | 40.0 (1 seed) |" in text


def test_runs_of_another_commit_are_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "claims.json"
    for row, commit in (("A", "abc"), ("B", "def")):
        monkeypatch.setattr(results, "commit", lambda commit=commit: commit)
        runs = [{"name": RUN.format(experiment="toy", row=row, seed=0), "metrics": {"mIoU": 1.0}}]
        results.write_results(path, runs, command="toy", merge=True)
    text = page(judged(toy(), path, ["toy/wins"]), toy(), path)
    assert "- **toy**: two rows; measured at `abc`, `def`." in text


def test_a_claim_that_cannot_be_seen_has_its_reason(tmp_path: Path) -> None:
    sheet = toy(orders=(), experiment=None, unseen="there is one world.", published=())
    found = verdict(tmp_path, sheet)
    assert found.verdict is Verdict.UNSEEN
    assert "**cannot be seen here, because there is one world.**" in page(
        [found], sheet, tmp_path / "claims.json"
    )


def test_other_tables_are_read(tmp_path: Path) -> None:
    sheet = toy(
        experiment=None,
        results="results/shapes_declip.json",
        orders=("mIoU_csa: DeCLIP > plain",),
        published=(),
    )
    found = verdict(tmp_path, sheet)
    assert found.verdict is Verdict.HOLDS and found.comparisons[0].spread is not None
    assert "Ours: `results/shapes_declip.json`." in page([found], sheet, tmp_path / "claims.json")
