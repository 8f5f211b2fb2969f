"""One run holds a folder at a time, and what is no progress of a run is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmclipdis.commands.progress import NAME, Progress
from mmclipdis.commands.usage import Mistake


def test_a_second_run_waits_for_the_first(tmp_path: Path) -> None:
    first = Progress(tmp_path, {}, False, False)
    with pytest.raises(Mistake, match="another run writes into"):
        Progress(tmp_path, {}, False, False)
    first.close()
    Progress(tmp_path, {}, False, False).close()


def test_a_run_that_came_to_no_photo_leaves_nothing(tmp_path: Path) -> None:
    Progress(tmp_path, {}, False, False).close()
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_stays_until_another_comes_to_its_first_photo(tmp_path: Path) -> None:
    first = Progress(tmp_path, {"--words": "kite"}, False, False)
    first.add("a.png", {"file": "a"})
    first.finish()
    first.close()
    kept = (tmp_path / NAME).read_bytes()
    Progress(tmp_path, {"--words": "apple"}, False, False).close()  # refused for its words
    assert (tmp_path / NAME).read_bytes() == kept
    other = Progress(tmp_path, {"--words": "apple"}, False, False)
    other.add("b.png", {"file": "b"})
    assert [entry["photo"] for entry in other.entries()] == ["b.png"]
    other.close()
    assert '"apple"' in (tmp_path / NAME).read_text().splitlines()[0]


def test_what_failed_is_tried_again_and_what_is_done_is_not(tmp_path: Path) -> None:
    progress = Progress(tmp_path, {}, False, False)
    progress.add("a.png", {"error": "cannot be read"})
    progress.add("b.png", {"file": "b"})
    progress.close()
    again = Progress(tmp_path, {}, True, False)
    assert again.done == {"b.png": "b"}
    assert again.free_name("B") == "B_2" and again.free_name("c") == "c"
    assert [entry["photo"] for entry in again.entries()] == ["b.png"]
    again.close()


def test_a_file_that_is_no_progress_is_named_with_the_line(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"a": 1}\nhello\n')
    with pytest.raises(Mistake, match="progress.jsonl: line 2 is no line of a run"):
        Progress(tmp_path, {}, False, False)
    assert (tmp_path / NAME).read_text() == '{"a": 1}\nhello\n'


def test_what_a_killed_run_had_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    halves = [place / f".a.png.{'0a' * 16}.tmp" for place in (tmp_path, tmp_path / "labels")]
    for half in halves:
        half.write_bytes(b"half a picture")
    (tmp_path / ".mine.tmp").write_bytes(b"")
    Progress(tmp_path, {}, True, False).close()
    assert not any(half.exists() for half in halves) and (tmp_path / ".mine.tmp").exists()


@pytest.mark.parametrize(("resume", "wrong"), [(False, "was not finished"), (True, "otherwise")])
def test_a_run_that_is_refused_removes_nothing(tmp_path: Path, resume: bool, wrong: str) -> None:
    first = Progress(tmp_path, {"--words": "kite"}, False, False)
    first.add("a.png", {"file": "a"})
    first.close()
    half = tmp_path / f".a.png.{'0a' * 16}.tmp"
    half.write_bytes(b"half a picture")
    with pytest.raises(Mistake, match=wrong):
        Progress(tmp_path, {"--words": "apple"}, resume, False)
    assert half.exists()
