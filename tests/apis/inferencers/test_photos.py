"""Photos come from anywhere, in order, one at a time."""

from __future__ import annotations

import glob
import io
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mmclipdis.apis.inferencers import photos
from mmclipdis.apis.inferencers.photos import count_of, is_single, photos_of
from tests.faults.endings import raises


def grey(value: int) -> np.ndarray:
    return np.full((4, 6, 3), value, np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photos, a text, a hidden file, and a folder with a photo."""
    for number, name in enumerate(("b.png", "a.PNG", "c.png", "inside/d.png", "._a.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(grey(number)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no photo")
    return tmp_path


def write_video(path: Path, frames: int = 5) -> Path:
    """A video whose frame i is red of 40 * i."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 16))
    for number in range(frames):
        writer.write(np.full((16, 32, 3), (0, 0, 40 * number), np.uint8))  # BGR
    writer.release()
    return path


def names(sources: Any) -> list[str]:
    return [Path(source.name).name for source in photos_of(sources)]


def test_a_folder_gives_its_photos_by_name_and_nothing_else(folder: Path) -> None:
    assert names(folder) == names(str(folder)) == ["a.PNG", "b.png", "c.png"]
    assert count_of(folder) == 3 and not is_single(folder)


def test_a_pattern_may_look_into_folders(folder: Path) -> None:
    assert names(f"{folder}/*.png") == ["b.png", "c.png"]
    assert names(f"{folder}/**") == ["a.PNG", "b.png", "c.png", "d.png"]
    assert not is_single(f"{folder}/*.png")


def test_a_pattern_finds_what_glob_finds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("inside/[deep]/e.png", "inside/.hidden/f.png", "other/inside/g.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey(1)).save(folder / name)
    (folder / "linked").symlink_to(folder / "inside")
    monkeypatch.chdir(folder)
    patterns = ["**", "**/*.png", "**/inside/*.png", "*/**", "**/inside/**", "inside/**/e.png"]
    for pattern in [*patterns, *(f"{folder}/{one}" for one in patterns), "inside/.hidden/**"]:
        found = {path for path in glob.glob(pattern, recursive=True) if Path(path).is_file()}
        wanted = sorted(path for path in found if not path.endswith(".txt"))
        assert wanted and [source.name for source in photos_of(pattern)] == wanted, pattern
    assert names("linked/**") == ["e.png", "d.png"]  # a link that leads elsewhere is followed


def test_a_pattern_follows_no_links_that_lead_back(folder: Path) -> None:
    (folder / "other").mkdir()
    links = [("itself", "itself"), ("back", "."), ("inside/up", ".."), ("inside/far", "../..")]
    for link, target in [*links, ("inside/side", "../other"), ("other/side", "../inside")]:
        (folder / link).symlink_to(target, target_is_directory=True)
    found = [str(Path(source.name).relative_to(folder)) for source in photos_of(f"{folder}/**")]
    assert found == ["a.PNG", "b.png", "c.png", "inside/d.png", "other/side/d.png"]
    assert count_of(f"{folder}/**") == 5
    assert names(folder) == ["a.PNG", "b.png", "c.png"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    path = tmp_path / "photo[1].png"
    Image.fromarray(grey(7)).save(path)
    (source,) = photos_of(str(path))
    assert source.load().photo[0, 0, 0] == 7 and is_single(str(path))


def test_a_generator_is_asked_for_one_photo_at_a_time() -> None:
    given: list[int] = []

    def endless() -> Iterator[np.ndarray]:
        for number in range(10**9):
            given.append(number)
            yield grey(number % 255)

    found = photos_of(endless())
    assert [next(found).load().photo[0, 0, 0] for _ in range(3)] == [0, 1, 2]
    assert given == [0, 1, 2]


def test_frames_of_a_video_are_rgb_and_numbered(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi")
    loaded = [source.load() for source in photos_of([path, grey(9)])]
    assert [one.frame for one in loaded] == [0, 1, 2, 3, 4, None]
    red = [float(one.photo[..., 0].mean()) for one in loaded[:5]]
    assert np.abs(np.array(red) - 40 * np.arange(5)).max() < 8
    assert loaded[4].photo[..., 2].mean() < 8  # RGB: it is not blue
    assert loaded[0].path == path and not is_single(path)


def test_a_photo_is_fetched_from_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.fromarray(grey(5)).save(file, format="PNG")
    asked: list[str] = []

    def answer(address: str, timeout: float) -> io.BytesIO:
        asked.append(address)
        return io.BytesIO(file.getvalue())

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    (source,) = photos_of("https://nowhere.invalid/a/b.png?size=1")
    assert not asked
    loaded = source.load()
    assert np.array_equal(loaded.photo, grey(5)) and str(loaded.path) == "b.png"
    monkeypatch.setattr(photos, "MOST_BYTES", 10)
    raises("b.png.* is more than 10 bytes", source.load)


def test_an_address_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str, timeout: float) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    (source,) = photos_of("http://nowhere.invalid/a.png")
    raises("cannot fetch http://nowhere.invalid/a.png: Name or .* check the address", source.load)


def test_what_is_no_photo_is_named_when_its_turn_comes(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    broken = ["absent.png", tmp_path / "text.mp4", tmp_path / "empty", 5, tmp_path / "absent.avi"]
    *found, last = photos_of([*broken, grey(1)])
    lines = ["no image at absent.png", r"cannot read .*text.mp4 as a video", "holds no photos"]
    lines += ["photo 3 is 5: give files, RGB arrays", "no video at .*absent.avi"]
    for source, line in zip(found, lines, strict=True):
        raises(line, source.load)
    assert last.load().photo[0, 0, 0] == 1


def test_frames_above_the_limit_of_pixels_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "clip.avi", 2)
    monkeypatch.setenv("MMCLIPDIS_MAX_PIXELS", "100")
    (source,) = photos_of(path)
    raises("clip.avi has 32 x 16 = 512 pixels, more than the limit of 100", source.load)


def test_a_folder_without_photos_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "trip").mkdir()
    raises(r"folder '.*' holds no photos .*its 1 folders are not looked into: give '.*/\*\*'",
           photos_of, tmp_path)  # fmt: skip
    raises(r"nothing behind the pattern '.*\.jpg' is a photo", photos_of, f"{tmp_path}/*.jpg")
    raises("photos=b'ab': give files, RGB arrays or Pillow images", photos_of, b"ab")


def test_an_array_may_be_used_again_for_the_next_photo() -> None:
    buffer = grey(10)
    loaded = next(photos_of(buffer)).load()
    buffer[:] = 99
    assert (loaded.photo == 10).all()


def test_a_tensor_is_no_list_of_photos() -> None:
    raises("photos=tensor", photos_of, torch.zeros(3, 8, 8))
