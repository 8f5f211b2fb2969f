"""tools/dataset_converters/shapes.py: writes once, says so, and refuses with one clear line."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

SCRIPT = ROOT / "tools" / "dataset_converters" / "shapes.py"


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_a_second_run_finds_the_data_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (str(tmp_path / "data"), "--train", "2", "--val", "1", "--seed", "4")
    _run(monkeypatch, *arguments)
    assert "data: written" in capsys.readouterr().out
    assert len(list((tmp_path / "data" / "images" / "train").glob("*.png"))) == 2
    _run(monkeypatch, *arguments)
    assert "data: already complete" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--train", "0"), "train must be at least 1 image, got 0"),
        (("--train", "1"), "is not empty and does not hold this data set complete"),
    ],
)
def test_bad_requests_end_with_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    (tmp_path / "other.txt").write_text("mine")
    with pytest.raises(SystemExit) as stop:
        _run(monkeypatch, str(tmp_path), *arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]
