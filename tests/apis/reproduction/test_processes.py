"""Tools are started as a user would start them, end with a line, and share slots and launchers."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from mmclipdis.apis.reproduction import processes
from mmclipdis.apis.reproduction.processes import Pool, Setup

WORDS = ["a.py", "b.pth", "--work-dir", "w", "--cfg-options", "c=1"]


def test_a_launcher_stands_before_the_options() -> None:
    script = Pool(Setup())._command("test", WORDS)
    assert script[0] == sys.executable and script[2:] == WORDS
    several = Pool(Setup(1, "pytorch", 2))._command("test", WORDS)
    assert several[1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    assert several[6:] == ["a.py", "b.pth", "--launcher", "pytorch", *WORDS[2:]]


def test_cells_at_once_share_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_gpus", lambda: ["0", "1", "2"])
    pool = Pool(Setup(2, "pytorch", 2))
    found = [pool._environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in (0, 1)]
    assert found == ["0,1", "2,0"]
    assert "CUDA_VISIBLE_DEVICES" not in Pool(Setup())._environment(0)


def test_a_tool_that_fails_is_its_own_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tools").mkdir()
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    for code, said in (
        ("import sys; print('x'); sys.exit('error: no data')", "no data"),
        ("raise ValueError('a bug')", "ValueError: a bug"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9"),
        ("print('fine')", None),
    ):
        (tmp_path / "tools" / "test.py").write_text(code)
        assert Pool(Setup()).run("test", [], tmp_path / "logs" / "log.txt") == said


def test_an_interruption_ends_what_runs_and_starts_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "test.py").write_text(
        "import pathlib, sys, time\npathlib.Path(sys.argv[1]).touch()\n"
        "time.sleep(0 if sys.argv[1].endswith('a') else 100)\n"
    )
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    pool, began = Pool(Setup(2)), time.monotonic()
    names = [str(tmp_path / name) for name in "abcd"]
    running = pool.each(lambda name: pool.run("test", [name], Path(f"{name}.log")), names)
    assert next(running) == (names[0], None)
    wait_for(Path(names[1]))
    running.close()  # as an interruption does
    assert not Path(names[3]).exists()
    assert time.monotonic() - began < 60


def wait_for(path: Path) -> None:
    for _ in range(300):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} did not come")
