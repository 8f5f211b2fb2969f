"""What is wrong with a request is said in one line, before a model is loaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mmclipdis.commands import photos as photos_module
from mmclipdis.commands.__main__ import command
from mmclipdis.commands.start import run

WORDS = ["--words", "kite, apple"]
#: The words behind the subcommand -> what the line says.
MISTAKES = {
    "no words": (["segment", "a.png"], "no words: .*--words 'grass, sand, kite' or --words-file"),
    "empty words": (["segment", "a.png", "--words", " ,"], "no words"),
    "words twice": (["tag", "a.png", *WORDS, "--words-file", "x"], "both say.*: give one"),
    "no file of words": (["tag", "a.png", "--words-file", "x.txt"], "no file 'x.txt'"),
    "no such format": (["segment", "a.png", *WORDS, "--format", "gif"], "'gif': choose from png, "),
    "no format": (["segment", "a.png", *WORDS, "--format", ","], "','.*choose from"),
    "files without a folder": (["segment", "a.png", *WORDS, "--format", "png"], "give --out DIR"),
    "two tables on stdout": (["tag", "a.png", *WORDS, "--format", "csv,json"], "give --out DIR"),
    "labels of boxes": (
        ["detect", "a.png", *WORDS, "--format", "labels", "--out", "o"],
        "labels is a map of classes, which `mmclipdis detect` has not",
    ),
    "masks of tags": (["tag", "a.png", *WORDS, "--format", "coco", "--out", "o"], "coco is about"),
    "resume what": (["segment", "a.png", *WORDS, "--resume"], "--resume is about --out"),
    "resume and overwrite": (
        ["segment", "a.png", *WORDS, "--out", "o", "--resume", "--overwrite"],
        "--resume goes on .* give one",
    ),
    "no such model": (
        ["segment", "a.png", *WORDS, "--model", "clearclip-vitb17"],
        "no model 'clearclip-vitb17'.*'clearclip-vitb16'",
    ),
    "no such config": (["segment", "a.png", *WORDS, "--model", "no/such.py"], "no/such.py"),
    "a model of another task": (
        ["segment", "a.png", *WORDS, "--model", "fvit-shapes"],
        "'fvit-shapes' detects objects and cannot segment: .*`mmclipdis detect`",
    ),
    "a file for a folder": (
        ["segment", "a.png", *WORDS, "--out", "file.txt"],
        "--out file.txt cannot be written: a file stands where a folder is needed",
    ),
    "a folder nobody can make": (
        ["segment", "a.png", *WORDS, "--out", "/proc/results"],
        "--out /proc/results cannot be written: .*; give another folder",
    ),
}


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: Any) -> int:
        raise AssertionError("torch would be imported")

    monkeypatch.setattr(photos_module, "run", start)


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_before_torch_is_imported(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file.txt").write_text("kite\n")
    monkeypatch.chdir(tmp_path)
    words, line = MISTAKES[case]
    assert command(words) == 2
    printed = capsys.readouterr()
    (only,) = printed.err.splitlines()
    assert only.startswith("error: ") and re.search(line, only) and printed.out == "", only
    assert not (tmp_path / "o").exists()


def test_a_folder_without_photos_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert command(["segment", "empty", *WORDS, "--out", "results"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: folder 'empty' holds no photos"), line
    assert not list((tmp_path / "results").iterdir())


@pytest.mark.parametrize(
    ("model", "task"),
    [([], "detect"), (["--model", "fvit-shapes"], "detect"), (["--model", "own.py"], None)],
)
def test_only_models_of_the_package_import_the_tasks_library_alone(
    model: list[str], task: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The config of a user may name anything."""
    (tmp_path / "own.py").write_text("model = dict(type='FViT')\n")
    monkeypatch.chdir(tmp_path)
    asked: list[Any] = []
    monkeypatch.setattr(photos_module, "run", lambda work, task: asked.append(task) or 0)
    assert command(["detect", "a.png", *WORDS, *model]) == 0
    assert asked == [task]


def test_a_background_is_a_word_or_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []

    def keep(work: Any, task: str | None) -> int:
        found.append(work.__closure__[0].cell_contents.background)
        return 0

    monkeypatch.setattr(photos_module, "run", keep)
    for text in ("wall", "0.25"):
        assert command(["segment", "a.png", *WORDS, "--background", text]) == 0
    assert found == ["wall", 0.25]


def test_what_the_work_returns_is_the_exit_code() -> None:
    assert run(lambda: 1) == 1
