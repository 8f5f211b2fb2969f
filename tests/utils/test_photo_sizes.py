"""Sizes of photos and annotations are compared, and an EXIF turn is named as the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from mmclipdis.utils.photo_sizes import orientation, size_problem


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation_of_a_file(turn: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=exif)
    assert orientation(str(tmp_path / "a.jpg")) == turn
    text = size_problem(str(tmp_path / "a.jpg"), (4, 2), (2, 4), "its annotation")
    assert ("its EXIF tag turns the photo" in text) == (turn > 4)


def test_files_without_the_tag_are_upright(tmp_path: Path) -> None:
    Image.new("L", (4, 2)).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    assert [orientation(str(tmp_path / name)) for name in ("a.png", "b.jpg", "c.jpg")] == [1, 1, 1]
    assert size_problem("a.png", (2, 4), (2, 4), "its annotation") == ""
    assert "4 x 2 pixels" in size_problem("a.png", (2, 4), (2, 5), "its annotation")
