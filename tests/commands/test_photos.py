"""What is wrong with a request is said in one line, before a model is loaded."""

from __future__ import annotations

import re
import warnings
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
    "no file of words": (["tag", "a.png", "--words-file", "x.txt"], "x.txt is not there: give a"),
    "a folder of words": (["tag", "a.png", "--words-file", "."], "--words-file . is a folder"),
    "a file without words": (["tag", "a.png", "--words-file", "zero.txt"], "zero.txt is empty"),
    "a binary file of words": (
        ["tag", "a.png", "--words-file", "bytes.txt", "--out", "o"],
        "bytes.txt is no UTF-8 text .invalid start byte at byte 2.",
    ),
    "no number": (["tag", "a.png", *WORDS, "--threshold", "x"], "'x' is not a valid number"),
    "a large threshold": (["tag", "a.png", *WORDS, "--threshold", "1.5"], "--threshold.*0<=x<=1"),
    "no whole number": (["tag", "a.png", *WORDS, "--batch-size", "x"], "valid whole number"),
    "no batch": (["tag", "a.png", *WORDS, "--batch-size", "0"], "'--batch-size': 0 .*x>=1"),
    "no such format": (["segment", "a.png", *WORDS, "--format", "gif"], "'gif': choose from png, "),
    "no format": (["segment", "a.png", *WORDS, "--format", ","], "','.*choose from"),
    "files without a folder": (["segment", "a.png", *WORDS, "--format", "png"], "give --out DIR"),
    "two tables on stdout": (["tag", "a.png", *WORDS, "--format", "csv,json"], "give --out DIR"),
    "labels of boxes": (
        ["detect", "a.png", *WORDS, "--format", "labels", "--out", "o"],
        "labels is a map of classes, which `mmclipdis detect` has not",
    ),
    "masks of tags": (["tag", "a.png", *WORDS, "--format", "coco", "--out", "o"], "coco is about"),
    "two kinds of print": (
        ["segment", "a.png", *WORDS, "--format", "csv", "--json"],
        "--json and --format csv both say what is printed",
    ),
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
    "a folder below a file": (
        ["segment", "a.png", *WORDS, "--out", "file.txt/o"],
        "--out file.txt/o cannot be written: a file stands where a folder is needed",
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
    (tmp_path / "zero.txt").write_text("\n ,\n")
    (tmp_path / "bytes.txt").write_bytes(b"\0\1\xff\xfe")
    monkeypatch.chdir(tmp_path)
    words, line = MISTAKES[case]
    assert command(words) == 2
    printed = capsys.readouterr()
    (only,) = printed.err.splitlines()
    assert only.startswith("error: ") and re.search(line, only) and printed.out == "", only
    assert not (tmp_path / "o").exists()


#: What is found out once the model is there: the words behind the subcommand, and the line.
LATE_MISTAKES = {
    "no photos": (["segment", "empty", *WORDS], "folder 'empty' holds no photos"),
    "no photos of a pattern": (
        ["segment", "*.gif", *WORDS],
        r"nothing behind .*'\*.gif' is a photo",
    ),
    "a broken video": (["segment", "film.mp4", *WORDS], "cannot read film.mp4 as a video"),
    "no photo": (["segment", "absent.png", *WORDS], "no image at absent.png"),
    "a long word": (
        ["segment", "empty/../a.png", "--words", f"{'kite ' * 90}, sea"],
        "the word 'kite kite .*' does not fit: .* 100 tokens, and the text tower reads 77",
    ),
    "one word": (["tag", "a.png", "--words", "kite"], "one word: .*; give more words, or backgr"),
    "a word of the model's background": (
        ["detect", "a.png", "a.png", "--words", "grass, kite"],
        "or one named 'grass', .*, which the detector adds itself",
    ),
    "a large background": (["segment", "a.png", *WORDS, "--background", "2"], "in .0, 1., got 2.0"),
    "two that are one": (["segment", "a.png", *WORDS, "--background", "kite"], "'kite' is both"),
    "no such device": (["segment", "a.png", *WORDS, "--device", "gpu0"], "no device 'gpu0'"),
    "no weights": (["segment", "a.png", *WORDS, "--weights", "absent.pth"], "absent.pth"),
}


@pytest.mark.parametrize("case", LATE_MISTAKES)
def test_a_mistake_that_the_model_finds_is_one_line_and_leaves_nothing(
    case: str,
    photos: Path,
    quick: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    words, line = LATE_MISTAKES[case]
    if words[0] != "segment" or case in ("no such device", "no weights"):
        monkeypatch.undo()  # its own inferencer
        monkeypatch.chdir(photos.parent)
    Path("empty").mkdir()
    Path("film.mp4").write_bytes(b"no video")
    (photos / "a.png").rename("a.png")
    monkeypatch.setattr(warnings, "showwarning", lambda *_, **__: None)
    assert command([*words, "--out", "results", "--format", "csv"]) == 2
    printed = capfd.readouterr()
    # OpenCV asks once a process how much FFmpeg may say; that of the command may say nothing
    said = [line for line in printed.err.splitlines() if not line.startswith("[mov,mp4")]
    assert said[0].startswith("error: ") and re.search(line, said[0]), printed.err
    assert printed.out == "" and len(printed.err) < 900
    left = {path.name for path in Path("results").iterdir()} if Path("results").exists() else set()
    assert left <= {"progress.jsonl", "results.csv"} and ("results.csv" in left) == (len(said) > 1)


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


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was to be done, with nothing done."""
    found: list[Any] = []

    def keep(work: Any, task: str | None) -> int:
        found.append(work.__closure__[0].cell_contents)
        return 0

    monkeypatch.setattr(photos_module, "run", keep)
    return found


def test_a_background_is_a_word_or_a_number(jobs: list[Any]) -> None:
    for text in ("wall", "0.25"):
        assert command(["segment", "a.png", *WORDS, "--background", text]) == 0
    assert [job.background for job in jobs] == ["wall", 0.25]


def test_unsure_boxes_are_left_out_unless_somebody_asks(jobs: list[Any]) -> None:
    for task, more in (
        ("detect", []),
        ("detect", ["--threshold", "0"]),
        ("detect", ["--background", "0.2"]),
        ("segment", []),
    ):
        assert command([task, "a.png", *WORDS, *more]) == 0
    assert [job.threshold for job in jobs] == [0.3, 0, None, None]


def test_what_the_work_returns_is_the_exit_code() -> None:
    assert run(lambda: 1) == 1
