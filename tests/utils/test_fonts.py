"""Names of any script in pictures: a font that has them, or one line that says it has not."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from mmclipdis.utils import fonts as fonts_module
from mmclipdis.utils.fonts import font_file, font_for
from mmclipdis.visualization import class_palette, compose_sheet
from mmclipdis.visualization.class_similarity import draw_class_similarity


@pytest.fixture(autouse=True)
def _forget() -> None:
    font_file.cache_clear()


@pytest.mark.parametrize("text", ["θάλασσα", "дом", "سماء", "Ärmel", "naïve café"])
def test_matplotlibs_font_has_these(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        font = font_for(text, 20)
    assert Path(font.path).name == "DejaVuSans.ttf"
    box = font.getmask("\uffff").getbbox()
    assert all(font.getmask(c).getbbox() != box for c in text if not c.isspace())


def test_ascii_is_drawn_in_pillows_font() -> None:
    assert font_for("sky", 20).getname() != font_for("дом", 20).getname()


def test_what_no_font_has_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    only = [next(fonts_module._candidates())]
    monkeypatch.setattr(fonts_module, "_candidates", lambda: iter(only))
    with pytest.warns(UserWarning, match="no installed font has the characters 天空: .*Noto Sans"):
        font_for("天空 sky", 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        font_for("天空 sky", 20)


def test_the_font_that_has_most_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    have = {"a.ttf": "ab", "b.ttf": "天a", "c.ttf": "天空a"}
    monkeypatch.setattr(fonts_module, "_candidates", lambda: iter(have))
    monkeypatch.setattr(fonts_module, "_characters", lambda p: frozenset(map(ord, have[p])))
    assert font_file(frozenset("天空a")) == ("c.ttf", "")


def test_figures_say_it_once_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only = [next(fonts_module._candidates())]
    monkeypatch.setattr(fonts_module, "_candidates", lambda: iter(only))
    matrix = np.array([[1, 0.5], [0.5, 1]])
    with pytest.warns(UserWarning, match="no installed font") as said:
        draw_class_similarity({"clip": matrix}, ["天空", "дом"], tmp_path / "a.png")
    assert sum("font" in str(warning.message) for warning in said) == 1


@pytest.mark.parametrize("size", [(1, 20000), (20000, 1), (2, 2000), (2000, 2)], ids=str)
def test_a_long_photo_makes_no_large_sheet(size: tuple[int, int]) -> None:
    photo, labels = np.full((*size, 3), 90, np.uint8), np.zeros(size, np.int64)
    sheet = compose_sheet(
        [[photo, labels]], ["photo", "labels"], ["sky"], class_palette(1), cell_height=360
    )
    assert sheet.width * sheet.height < 4e6
    pixels = np.asarray(sheet)
    assert (pixels == 90).all(-1).sum() >= 8 * 360  # it can be seen
