"""`mmclipdis reproduce` says what is missing, ends with the codes of its help, and runs a table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mmclipdis.apis.reproduction import reproducing, running
from mmclipdis.apis.reproduction.needs import Needs
from mmclipdis.commands.__main__ import command
from mmclipdis.utils import locks
from tests.apis.reproduction.cells import Pretended

TABLE = "clearclip/table2"


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    """As if all were here, and tools that are only pretended to run."""
    pool = Pretended()
    monkeypatch.setattr(reproducing, "Pool", lambda setup: pool)
    monkeypatch.setattr(reproducing.Look, "needs", lambda self, cell: Needs(()))
    monkeypatch.setattr(running, "put_weights", lambda *_: None)
    return pool


def test_a_table_without_data_is_a_plan_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["reproduce", TABLE]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    plan, error = found.err.split("error: ")
    assert "can be run: 0 of 45 cells" in plan and "unpack VOC 2012 trainval in data" in plan
    assert error.startswith("clearclip/table2: none of 45 cells can be run, since all lack data")
    assert error.count("\n") == 1
    assert command(["reproduce", TABLE, "--plan"]) == 1
    assert not Path("work_dirs").exists() and not Path("results").exists()


def test_an_unknown_table_and_an_unknown_row_are_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(["reproduce", "clearclip/tabel2"]) == 2
    assert "error: there is no table 'clearclip/tabel2'; did you mean" in capsys.readouterr().err
    assert command(["reproduce", TABLE, "--only", "ClearClip"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: --only 'ClearClip' fits no cell of clearclip/without-background")


def test_gpus_and_their_launcher_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--gpus", "2"], ["--launcher", "pytorch"]):
        assert command(["reproduce", TABLE, *words]) == 2
        assert "--gpus and --launcher pytorch go together" in capsys.readouterr().err


def test_a_table_is_measured_printed_and_written(
    ready: Pretended, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", TABLE, "--only", "ClearCLIP, B/16", "--out", "tables", "--jobs", "2"]
    assert command(words) == 0
    found = capsys.readouterr()
    assert re.search(r"ClearCLIP, B/16 +VOC20 +mIoU +80\.90 +80\.85 +-0\.05 ", found.out)
    assert "5/5 ClearCLIP, B/16 | " in found.err and "wrote tables/clearclip/" in found.err
    assert len(ready.started) == 5
    page = Path("tables/clearclip/without-background.md").read_text()
    assert "| ClearCLIP, B/16 | 80.85 (80.90) |" in page
    # another part of the table is added to what is there
    assert command(["reproduce", TABLE, "--only", "CLIP, B/16 | VOC20", "--out", "tables"]) == 0
    page = Path("tables/clearclip/without-background.md").read_text()
    assert "80.85 (80.90)" in page and "80.85* (41.80)" in page
    assert len(ready.started) == 6


def test_a_cell_that_fails_is_in_the_table_and_the_code_says_so(
    ready: Pretended, capsys: pytest.CaptureFixture[str]
) -> None:
    ready.problems = ["out of memory"]
    words = ["reproduce", TABLE, "--only", "ClearCLIP, B/16", "--out", "tables"]
    assert command(words) == 1
    assert "out of memory (work_dirs/reproduction/clearclip/" in capsys.readouterr().out
    assert command(words) == 0 and len(ready.started) == 6


def test_one_run_a_table(
    ready: Pretended, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(locks, "lock", lambda *_, **__: False)
    assert command(["reproduce", TABLE]) == 2
    assert "error: another run measures clearclip/" in capsys.readouterr().err


def test_the_miniature_of_a_cell_runs_through_the_real_tool(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes data and weights, and starts a process; about twenty seconds."""
    from mmclipdis.apis import run

    def in_this_process(self: Any, tool: str, words: list[str], log: Path) -> None:
        getattr(run, tool)([*words, "--cfg-options", "log_level=ERROR"])

    monkeypatch.setattr(reproducing.Pool, "run", in_this_process)
    assert command(["reproduce", TABLE, "--miniature", "--only", "ClearCLIP, B/16 | VOC20"]) == 0
    found = capsys.readouterr()
    line = next(one for one in found.out.splitlines() if one.startswith("ClearCLIP, B/16"))
    assert "random weights, generated data" in line and "differs" not in line
    (path,) = Path("work_dirs/reproduction/miniature/tables/clearclip").glob("*.json")
    assert "random weights" in path.read_text()
    assert not Path("results").exists()
