"""The command lists what it can do at once, and ends with the exit codes that its help names."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import warnings
from typing import Any

import click
import pytest

from mmclipdis.commands import __main__ as main
from mmclipdis.commands.__main__ import command
from mmclipdis.version import __version__
from tests.paths import ROOT

HELP = """
import sys, time
import mmclipdis_command
code = mmclipdis_command.command()
late = {"torch", "numpy", "PIL", "cv2", "mmengine", "mmcv", "open_clip", "yaml"} & {*sys.modules}
print(code, sorted(late), len(sys.modules))
"""


def test_help_imports_neither_torch_nor_anything_large() -> None:
    run = [sys.executable, "-c", HELP, "--help"]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT, check=True)
    code, late, count = done.stdout.splitlines()[-1].split()
    assert (code, late) == ("0", "[]"), done.stdout
    assert int(count) < 500  # torch alone is 900


def test_subcommands_are_listed_in_the_order_of_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["--help"]) == 0
    text = capsys.readouterr().out
    listed = [line.split()[0] for line in text.partition("Commands:\n")[2].splitlines()[:12]]
    assert listed[:4] == ["segment", "detect", "tag", "models"]
    assert {*listed} == {*main.mmclipdis.commands}
    for code in ("0 ", "1 ", "2 ", "130", "141"):
        assert f"\n    {code}" in text


@pytest.mark.parametrize("name", sorted({*main.mmclipdis.commands} - {"train", "test"}))
def test_every_help_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Example" in text and text.count(f"mmclipdis {name}") >= 2


def test_without_a_subcommand_there_is_help_and_a_mistake(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command([]) == 2
    assert "segment" in capsys.readouterr().out


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["segmnt"], "'segmnt'.*segment.*; see mmclipdis --help"),
        (["segment", "--wrds", "a"], "'--wrds'.*'--words'.*; see mmclipdis segment --help"),
        (["segment"], "SOURCES"),
        (["segment", "a.png", "--batch-size", "0"], "--batch-size.*0"),
        (["tag", "a.png", "--threshold", "2"], "--threshold.*2"),
        (["detect", "a.png", "--precision", "int8"], "--precision.*'int8'"),
    ],
)
def test_a_mistyped_command_line_is_one_line(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (only,) = printed.err.splitlines()
    assert re.search(line, only) and only.startswith("error: "), only


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 128 + signal.SIGINT, "interrupted"),
        (SystemExit(7), 7, ""),
        (click.UsageError("so\nnot"), 2, "error: so not"),
    ],
)
def test_how_a_subcommand_ends_is_the_exit_code(
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(main.mmclipdis.commands["models"], "callback", fail)
    assert command(["models"]) == code
    assert capsys.readouterr().err.strip().startswith(said)


PIPE = """
import sys, types
import mmclipdis_command
doctor = types.ModuleType("mmclipdis.doctor.__main__")
doctor.report = lambda as_json: print("well") or 0
sys.modules[doctor.__name__] = doctor
sys.exit(mmclipdis_command.command())
"""


@pytest.mark.parametrize("words", [["--help"], ["models"], ["doctor"]])
def test_a_pipe_whose_reader_has_gone_has_its_exit_code(words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with contextlib.closing(os.fdopen(write, "w")) as pipe:
        run = [sys.executable, "-c", PIPE, *words]
        done = subprocess.run(run, stdout=pipe, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_warning_is_a_line_where_the_command_is_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(*_: Any, **__: Any) -> int:
        warnings.warn("old\nPyTorch", UserWarning, stacklevel=1)
        return 1

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setenv("OPENCV_FFMPEG_LOGLEVEL", "16")
    monkeypatch.setattr(main.mmclipdis.commands["models"], "callback", warn)
    monkeypatch.setattr(sys, "argv", ["mmclipdis", "models"])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main.main() == 1
    assert capsys.readouterr().err == "warning: old PyTorch\n"
