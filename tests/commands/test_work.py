"""Results are written whole, broken photos stop nothing, and a run goes on where it was stopped."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as runs

from mmclipdis.commands.__main__ import command
from mmclipdis.commands.outputs import csv_lines
from mmclipdis.commands.work import Job

ASK = ["--words", "sand, sea, [kite, bird]"]
ALL = "png,labels,json,csv,coco"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_all_formats_say_what_the_inferencer_says(photos: Path, quick: Any) -> None:
    assert command(["segment", "photos", *ASK, "--out", "o", "--format", ALL, "-q"]) == 0
    out, expected = Path("o"), quick(["photos/a.png", "photos/b.png"], "sand, sea, [kite, bird]")
    for name, result in zip("ab", expected, strict=True):
        assert np.array_equal(np.asarray(Image.open(out / "labels" / f"{name}.png")), result.labels)
        assert Image.open(out / f"{name}.png").size[0] > result.photo.shape[1]
    found = lines(out / "results.jsonl")
    assert [entry["photo"] for entry in found] == ["photos/a.png", "photos/b.png"]
    shares = {row["name"]: row["share"] for row in found[1]["results"]}
    assert shares == expected[1].shares()
    with open(out / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["share"]) for row in rows if row["photo"] == "photos/b.png"] == [
        *shares.values()
    ]
    coco = json.loads((out / "coco.json").read_text())
    assert [image["id"] for image in coco["images"]] == [1, 2]
    assert [c["name"] for c in coco["categories"]] == ["sand", "sea", "kite"]
    assert [note["id"] for note in coco["annotations"]] == [*range(1, len(coco["annotations"]) + 1)]
    for note in coco["annotations"]:
        labels = expected[note["image_id"] - 1].labels
        size = note["segmentation"]["size"]
        rle = {"size": size, "counts": note["segmentation"]["counts"].encode()}
        assert np.array_equal(runs.decode(rle) == 1, labels == note["category_id"] - 1)


def test_without_a_folder_results_are_printed(
    photos: Path, quick: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (expected,) = quick("photos/a.png", "sand, sea, [kite, bird]")
    name, share = next(iter(expected.shares().items()))
    assert command(["segment", "photos/a.png", *ASK]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == "photos/a.png"
    first = printed.out.splitlines()[1].split()
    assert first[:2] == [name, f"{100 * share:.1f}"] and printed.err == ""
    assert command(["segment", "photos", *ASK, "--json", "-q"]) == 0
    printed = capsys.readouterr()
    assert [json.loads(line)["photo"] for line in printed.out.splitlines()] == [
        "photos/a.png", "photos/b.png"
    ]  # fmt: skip
    assert printed.err == ""
    assert command(["segment", "photos", *ASK, "--format", "csv"]) == 0
    printed = capsys.readouterr()
    rows = list(csv.DictReader(printed.out.splitlines()))
    assert {row["photo"] for row in rows} == {"photos/a.png", "photos/b.png"}
    assert printed.out.count("photo,name") == 1
    assert "segmented 2 photos in" in printed.err


def test_a_broken_photo_is_counted_and_named_and_stops_nothing(
    photos: Path, quick: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "aa.jpg").write_bytes(b"no photo")
    (photos / "film.mp4").write_bytes(b"no video")
    asked = ["segment", "photos", "absent.png", *ASK, "--out", "o", "--format", "json", "--json"]
    assert command(asked) == 1
    printed = capsys.readouterr()
    named = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert len(named) == 3
    assert all(name in printed.err for name in ("aa.jpg", "film.mp4", "absent.png"))
    assert "segmented 2 photos" in printed.err and "3 could not be used" in printed.err
    assert len(lines(Path("o/results.jsonl"))) == 2
    told = [json.loads(line) for line in printed.out.splitlines()]
    assert len(told) == 5 and sum("error" in entry for entry in told) == 3


def test_when_no_photo_can_be_used_that_is_a_mistake(
    photos: Path, quick: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["segment", "absent.png", *ASK]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "absent.png" in line


def test_photos_of_one_name_do_not_write_over_each_other(photos: Path, quick: Any) -> None:
    Path("more").mkdir()
    shutil.copy(photos / "b.png", "more/A.png")
    asked = ["segment", "photos", "more", *ASK, "--out", "o", "--format", "labels,json", "-q"]
    assert command(asked) == 0
    names = [entry["file"] for entry in lines(Path("o/results.jsonl"))]
    assert names == ["a", "b", "A_2"]
    assert {path.stem for path in Path("o/labels").iterdir()} == {*names}


@pytest.fixture
def stopped(photos: Path, quick: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A run over both photos that Ctrl-C stopped behind the first; the command line."""
    asked = ["segment", "photos", *ASK, "--out", "o", "--format", "labels,json,csv,coco"]
    stream = quick.stream

    def first_only(*args: Any, **options: Any) -> Iterator[Any]:
        yield next(stream(*args, **options))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(quick, "stream", first_only)
        assert command(asked) == 130
    return asked


def test_what_is_there_after_an_interruption_is_whole(stopped: list[str]) -> None:
    assert [entry["file"] for entry in lines(Path("o/results.jsonl"))] == ["a"]
    assert len(json.loads(Path("o/coco.json").read_text())["images"]) == 1
    assert [path.name for path in Path("o/labels").iterdir()] == ["a.png"]


def test_a_resumed_run_does_the_rest_and_ends_as_one_that_was_not_stopped(
    stopped: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with open("o/progress.jsonl", "ab") as file:
        file.write(b'{"photo": "photos/b.png", "fi')  # killed while it wrote
    before = Path("o/labels/a.png").stat().st_mtime_ns
    assert command([*stopped, "--resume"]) == 0
    assert "segmented 1 photo in" in (said := capsys.readouterr().err), said
    assert "1 done before" in said
    assert Path("o/labels/a.png").stat().st_mtime_ns == before
    whole = [*stopped]
    whole[whole.index("o")] = "whole"
    assert command(whole) == 0
    for name in ("results.jsonl", "results.csv", "coco.json", "labels/b.png"):
        assert Path("o", name).read_bytes() == Path("whole", name).read_bytes(), name


def test_options_that_changed_are_refused_by_name(
    stopped: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    changed = ["--threshold", "0.5", "--resume"]
    assert command([*stopped, *changed]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "--threshold was not given and is 0.5" in line and "--words" not in line
    assert command([*stopped, "--batch-size", "2", "--resume"]) == 0  # which changes no result


def test_an_unfinished_run_is_not_written_over_unasked(
    stopped: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(stopped) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "o holds a run that was not finished (1 photos): --resume goes on" in line
    assert command([*stopped, "--overwrite"]) == 0
    assert command(stopped) == 0  # a finished one is


def test_detect_and_tag_find_what_their_inferencers_find(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mmclipdis import detect, tag

    words = ["kite", "apple", "starfish"]
    for task, search, least in (("detect", detect, {"threshold": 0.3}), ("tag", tag, {})):
        rows = search("photos/a.png", words, **least).to_rows()
        capsys.readouterr()
        assert command([task, "photos/a.png", "--words", ",".join(words), "--json"]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        found = json.loads(line)["results"]
        assert rows and [row["name"] for row in found] == [row["name"] for row in rows]
        assert [row["score"] for row in found] == pytest.approx([row["score"] for row in rows])


def test_what_is_asked_of_a_file_of_words_is_its_content(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("kite\n")
    job = Job("tag", ("a.png",), file)
    assert job.deciding()["--words"] == "kite\n"


@pytest.mark.parametrize(("sources", "out"), [("photos", "photos"), ("**/*.png", "photos/found")])
def test_pictures_do_not_go_where_the_photos_are(
    sources: str, out: str, photos: Path, quick: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(out).mkdir(exist_ok=True)
    shutil.copy("photos/b.png", "photos/found" if out != "photos" else "c.png")
    before = {path: path.read_bytes() for path in Path().rglob("*.png")}
    assert command(["segment", sources, *ASK, "--out", out]) == 2
    assert f"--out {out} is where {out}/" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path().rglob("*.png")} == before
    # one by one a photo of another kind has no picture of its name, and tables replace nothing
    assert command(["segment", "photos/a.png", *ASK, "--out", "photos", "--format", "csv"]) == 0


def test_pictures_of_the_run_are_none_of_its_photos(
    photos: Path, quick: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out, formats = Path("photos/found"), "png,labels"
    asked = ["segment", "photos/**", *ASK, "--out", str(out), "--format"]
    # the second source is looked through before the first has results
    assert command([*asked, f"{formats},json", "photos/*/*", "photos"]) == 2  # no photo in there
    assert command([*asked, f"{formats},json", "./photos/**"]) == 0
    found = [entry["photo"] for entry in lines(out / "results.jsonl")]
    assert found == ["photos/a.png", "photos/b.png", "./photos/a.png", "./photos/b.png"]
    capsys.readouterr()
    assert command([*asked, f"{formats},json", "--resume"]) == 0
    assert "2 done before" in capsys.readouterr().err
    assert command([*asked, formats, "./photos/**"]) == 0  # anew
    assert "segmented 4 photos in" in capsys.readouterr().err
    assert command([*asked, formats, str(out / "a.png")]) == 2
    assert f"--out {out} is where {out}/a.png is" in capsys.readouterr().err


def test_photos_where_an_earlier_run_wrote_tables_alone_stay_photos(
    photos: Path, quick: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["segment", "photos", *ASK, "--out", "photos", "--format"]
    assert command([*asked, "json"]) == 0 and command([*asked, "json", "--resume"]) == 0
    assert "2 done before" in capsys.readouterr().err
    assert command([*asked, "png"]) == 2
    assert "--out photos is where photos/a.png is" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["1", "4"])
def test_a_photo_that_is_given_twice_is_in_tables_once(
    size: str, photos: Path, quick: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = ["photos/a.png", "photos/a.png", "photos", "--out", "o", "--format", "json"]
    assert command(["segment", *twice, *ASK, "--batch-size", size]) == 0
    assert [entry["photo"] for entry in lines(Path("o/results.jsonl"))] == [
        "photos/a.png", "photos/b.png"
    ]  # fmt: skip
    assert "done before" not in capsys.readouterr().err


def test_a_name_of_any_bytes_is_written_and_stops_nothing(photos: Path, quick: Any) -> None:
    try:
        shutil.copy("photos/a.png", b"photos/a\xff.png".decode("utf-8", "surrogateescape"))
    except OSError:  # a file system that takes UTF-8 alone has no such names
        return
    asked = ["segment", "photos", *ASK, "--out", "o", "--format", "csv,json,coco", "--json"]
    assert command(asked) == 0
    assert len(lines(Path("o/results.jsonl"))) == 3
    assert "a\\udcff.png" in Path("o/results.csv").read_text("utf-8")
    assert command([*asked, "--resume"]) == 0
    assert command(["segment", "photos", *ASK]) == 0


def test_a_table_has_its_columns_whatever_was_found(
    photos: Path, quick: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    film = cv2.VideoWriter("film.avi", cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))  # type: ignore[attr-defined]
    for _ in range(2):
        film.write(np.zeros((48, 64, 3), np.uint8))
    film.release()
    assert command(["segment", "photos/a.png", "film.avi", *ASK, "--format", "csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert {(row["photo"], row["frame"]) for row in rows} == {
        ("photos/a.png", ""), ("film.avi", "0"), ("film.avi", "1")
    }  # fmt: skip
    assert (
        command(["segment", "photos/a.png", "film.avi", *ASK, "--format", "csv", "--out", "o"]) == 0
    )
    assert Path("o/results.csv").read_text().splitlines()[0] == "photo,frame,name,share,pixels"


def test_no_cell_of_a_table_is_a_formula() -> None:
    rows = [{"photo": "a.png", "name": "=1+2", "score": -0.5}]
    text = "".join(csv_lines(["photo", "name", "score"], rows))
    assert text == "photo,name,score\na.png,'=1+2,-0.5\n"
