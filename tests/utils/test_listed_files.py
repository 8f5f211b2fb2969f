"""Lists of photos are read as they are meant; files that are missing or unread are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmclipdis.utils.listed_files import (
    ending_of,
    missing_message,
    missing_places,
    read_split,
    repeated,
    stock_split_problem,
    unread_pictures,
)


def test_a_list_of_windows_is_the_same_list(tmp_path: Path) -> None:
    plain, odd = tmp_path / "plain.txt", tmp_path / "odd.txt"
    plain.write_bytes(b"a b/c\nd\n")
    odd.write_bytes(b"\xef\xbb\xbfa b\\c\r\n\r\n  d \r\n")
    assert [name for _, name in read_split(odd)] == [name for _, name in read_split(plain)]
    assert read_split(odd) == [(1, "a b/c"), (3, "d")]
    assert stock_split_problem(plain) == "" and "byte order mark" in stock_split_problem(odd)


@pytest.mark.parametrize("line", ["a,1", "a\t1", "a;1"])
def test_a_second_column_is_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"b\n{line}\n")
    with pytest.raises(ValueError, match=r"line 2: .* has more than one column"):
        read_split(path)


@pytest.mark.parametrize("count", [3, 100])  # looked at one by one, or by folder
def test_missing_files_are_found(count: int, tmp_path: Path) -> None:
    for number in range(count):
        (tmp_path / f"{number}.jpg").touch()
    paths = [str(tmp_path / f"{number}.jpg") for number in range(count)]
    assert missing_places(paths) == []
    Path(paths[1]).unlink()
    assert missing_places([*paths, str(tmp_path / "none/x.jpg")]) == [1, count]


def test_the_message_names_the_line(tmp_path: Path) -> None:
    split = tmp_path / "val.txt"
    split.write_text("a\nb\n")
    paths = [str(tmp_path / "img/a.jpg"), str(tmp_path / "img/b.jpg")]
    text = missing_message("Data", "photos", paths, [1], source=str(split), suffix=".jpg",
                           remedy="set data_root")  # fmt: skip
    assert text.startswith("Data: 1 of 2 photos are not there; the first is ")
    assert f"line 2 of {split}; set data_root" in text


def test_names_without_ending_are_told_which_to_set(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "val.txt").write_text("a\n")

    def message(source: str) -> str:
        path = str(tmp_path / "a")
        return missing_message("Data", "photos", [path], [0], source=source, remedy="set data_root")

    assert message(str(tmp_path / "val.txt")).endswith(
        "val.txt; there is 'a.jpg': set img_suffix='.jpg', the ending of the photos"
    )
    assert message("val.json").endswith("'a.jpg': give the names of the list their endings")
    assert message("").endswith("set data_root")


def test_pictures_of_other_endings_are_counted(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.JPG", "c.jpeg", "d.png", "notes.txt"):
        (tmp_path / name).touch()
    text = unread_pictures(str(tmp_path), ".jpg", {str(tmp_path / "d.png")})
    assert text.startswith("2 pictures below") and "1 .JPG" in text and "1 .jpeg" in text
    assert unread_pictures(str(tmp_path), "", {str(p) for p in tmp_path.iterdir()}) == ""


def test_endings_and_repetitions() -> None:
    assert ending_of("a.b.png") == ending_of(".png") == ending_of("_labelTrainIds.png") == ".png"
    assert repeated(["a", "b"], "") == "" and "1 photos" in repeated(["a", "a", "b"], "list")
