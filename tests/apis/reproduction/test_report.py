"""The report says how far a number is, marks what is too far or of other code, and adds nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmclipdis.apis.reproduction import report
from mmclipdis.apis.reproduction.kept import Result
from mmclipdis.apis.reproduction.report import as_latex, as_markdown, as_text, lines, write_reports
from mmclipdis.apis.reproduction.running import Outcome
from mmclipdis.engine.results import read_results
from tests.apis.reproduction.cells import MEASURED, cell, table


@pytest.fixture(autouse=True)
def code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "code_state", lambda: "abc")


def measured(value: float, commit: str = "abc") -> Result:
    return Result(**{**MEASURED, "metrics": {"mIoU": value}}, commit=commit, machine="a laptop")


def outcomes(*values: float | None) -> list[Outcome]:
    return [
        Outcome(cell("a_row", f"C{place}", 50.0), None if v is None else measured(v))
        for place, v in enumerate(values)
    ]


def test_a_number_beyond_its_gate_is_marked_with_the_known_reasons() -> None:
    found = outcomes(50.3, 49.69)
    one = table(*(o.cell for o in found), reasons=("fp16",), page="docs/x.md")
    near, far = lines(one, found)
    assert near.note == "" and near.difference == pytest.approx(0.3)
    assert far.note == "differs by more than 0.3; known reasons (docs/x.md): fp16"
    assert "49.69* (50.00)" in as_latex(one, found)


def test_results_of_another_commit_are_marked() -> None:
    found = [Outcome(cell("a row", "C0", 50.0), measured(50.0, "older"))]
    (line,) = lines(table(found[0].cell), found)
    assert line.note == "measured by older"


def test_what_was_not_measured_says_why_and_has_no_difference() -> None:
    found = [Outcome(cell("a row", "C0"), problem="missing: data"), Outcome(cell("a row", "C1"))]
    one = table(*(o.cell for o in found))
    assert [(line.note, line.difference) for line in lines(one, found)] == [
        ("missing: data", None), ("not run", None)
    ]  # fmt: skip
    other = Outcome(cell("a row", "C0"), measured(1.0))
    (line,) = lines(table(other.cell), [other])
    assert line.measured == 1.0
    lost = Outcome(cell("a row", "C0"), Result(**{**MEASURED, "metrics": {"mAP": 1.0}},
                                               commit="abc", machine="m"))  # fmt: skip
    (line,) = lines(table(lost.cell), [lost])
    assert line.note == "the test gave no mIoU, but mAP"


def test_prefixes_and_underscores_of_metrics_make_no_difference() -> None:
    assert report.value_of({"coco/AP50_novel": 3.0}, "AP50 novel") == 3.0
    assert report.value_of({"AP50_all": 3.0}, "AP50 novel") is None


def test_the_mean_is_that_of_a_whole_row_only() -> None:
    found = outcomes(50.0, 52.0)
    one = table(*(o.cell for o in found), average=True)
    assert "mean    mIoU        50.00     51.00       +1.00" in as_text(one, found)
    part = outcomes(50.0, None)
    assert as_text(one, part).splitlines()[-1].split()[:5] == [
        "a_row",
        "mean",
        "mIoU",
        "50.00",
        "-",
    ]


def test_a_miniature_is_compared_with_nothing_and_says_what_it_is() -> None:
    found = outcomes(1.0)
    (line,) = lines(table(found[0].cell), found, "random weights")
    assert line.difference is None and line.note == "random weights"
    assert "random weights." in as_markdown(table(found[0].cell), found, "random weights")


def test_files_are_a_results_file_a_page_and_a_table_of_booktabs(tmp_path: Path) -> None:
    found = outcomes(50.5, None)
    one = table(*(o.cell for o in found))
    paths = write_reports(one, found, tmp_path)
    assert [p.relative_to(tmp_path).as_posix() for p in paths] == [
        "toy/one.json", "toy/one.md", "toy/one.tex"
    ]  # fmt: skip
    (row,) = read_results(paths[0])["rows"]
    assert row["name"] == "a_row | C0" and row["commit"] == "abc" and row["machine"] == "a laptop"
    metrics = row["metrics"]
    assert (metrics["mIoU published"], metrics["mIoU"], metrics["mIoU difference"]) == (
        50,
        50.5,
        0.5,
    )
    assert metrics["seconds an image"] == 0.25 and metrics["source"] == "A paper"
    assert json.loads(paths[0].read_text())["command"]
    page = paths[1].read_text()
    assert "| a_row | 50.50* (50.00) | - (50.00) |" in page and "a\\_row" not in page
    latex = paths[2].read_text()
    assert r"a\_row & 50.50* (50.00) & - (50.00) \\" in latex and r"\toprule" in latex
    assert latex.count(r"\\") == 2 and "{lrr}" in latex


def test_without_a_result_nothing_is_written(tmp_path: Path) -> None:
    found = outcomes(None)
    assert write_reports(table(found[0].cell), found, tmp_path) == [] and not any(
        tmp_path.iterdir()
    )
