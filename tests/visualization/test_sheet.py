"""Sheets: right colours, readable layout, clear errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmclipdis.visualization import (
    blend,
    class_palette,
    colour_labels,
    compose_sheet,
    draw_sheet,
)

PALETTE = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
NAMES = ["cat", "dog", "sky"]


def test_labels_get_their_colours_and_ignored_pixels_grey() -> None:
    picture = colour_labels(np.array([[0, 2, 255]]), PALETTE)
    assert picture.tolist() == [[[255, 0, 0], [0, 0, 255], [225, 225, 225]]]
    with pytest.raises(ValueError, match="palette has 3 colours"):
        colour_labels(np.array([[3]]), PALETTE)


def test_palette_colours_are_distinct_and_stable() -> None:
    palette = class_palette(171)
    assert len(set(palette)) == 171
    assert class_palette(20) == palette[:20]
    first = np.array(class_palette(12), dtype=float)
    gaps = np.linalg.norm(first[:, None] - first[None], axis=-1) + 1e3 * np.eye(12)
    assert gaps.min() > 40


def test_blend_mixes_photo_and_colours() -> None:
    photo = np.full((1, 2, 3), 100, dtype=np.uint8)
    labels = np.array([[0, 1]])
    assert np.array_equal(blend(photo, labels, PALETTE, 0.0), photo)
    assert np.array_equal(blend(photo, labels, PALETTE, 1.0), colour_labels(labels, PALETTE))
    assert blend(photo, labels, PALETTE, 0.5)[0, 0].tolist() == [178, 50, 50]
    with pytest.raises(ValueError, match="pixels"):
        blend(photo, labels.T, PALETTE)
    with pytest.raises(ValueError, match="opacity"):
        blend(photo, labels, PALETTE, 1.5)


def test_sheet_holds_every_cell_and_a_legend_of_the_classes_that_occur(tmp_path: Path) -> None:
    photo = np.full((30, 60, 3), 7, dtype=np.uint8)
    labels = np.zeros((20, 20), dtype=np.int64)
    labels[:, 10:] = 2
    path = draw_sheet(
        [[photo, labels], [photo, labels]], ["photo", "labels"], NAMES, PALETTE,
        tmp_path / "deep" / "sheet.png", cell_height=100,
    )  # fmt: skip
    with Image.open(path) as image:
        pixels = np.asarray(image)

    def count(colour: tuple[int, int, int]) -> int:
        return int((pixels == np.array(colour)).all(axis=-1).sum())

    assert count((7, 7, 7)) == 2 * 100 * 200
    half = 2 * 100 * 50  # of the label maps; the rest are swatches of the legend
    assert half < count(PALETTE[0]) < half + 500
    assert count(PALETTE[0]) == count(PALETTE[2])
    assert count(PALETTE[1]) == 0


def test_long_legends_wrap() -> None:
    names = [f"a rather long class name {i}" for i in range(30)]
    labels = np.arange(30)[None].repeat(5, axis=0)
    one = compose_sheet([[labels[:, :1]]], ["x"], names, class_palette(30), cell_height=60)
    many = compose_sheet([[labels]], ["x"], names, class_palette(30), cell_height=60)
    assert many.height > one.height


@pytest.mark.parametrize(
    ("rows", "titles", "message"),
    [
        ([], ["a"], "at least one"),
        ([[np.zeros((2, 2), int)]], ["a", "b"], "2 titles"),
        ([[np.zeros((2, 2, 3))]], ["a"], "cell must be"),
    ],
)
def test_bad_sheets_are_refused(rows, titles, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compose_sheet(rows, titles, NAMES, PALETTE)
    with pytest.raises(ValueError, match="colours for 3 classes"):
        compose_sheet([[np.zeros((2, 2), int)]], ["a"], NAMES, PALETTE[:2])


def test_long_names_of_a_large_vocabulary_are_cut() -> None:
    """Each name of 200 letters once had a row of its own, 1,203 of them 44,000 pixels."""
    labels = np.arange(401).reshape(1, 401)
    names = [f"{i} {'y' * 200}" for i in range(401)]
    sheet = compose_sheet([[labels]], ["classes"], names, class_palette(401), cell_height=360)
    short = compose_sheet(
        [[labels]], ["classes"], ["y" * 24] * 401, class_palette(401), cell_height=360
    )
    assert sheet.width == short.width
    assert sheet.height <= 2 * short.height


@pytest.mark.parametrize("opacity", ["x", 5, -0.1])
def test_an_opacity_is_a_share(opacity: object) -> None:
    photo, labels = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), int)
    with pytest.raises(ValueError, match="opacity must be a number in"):
        blend(photo, labels, class_palette(1), opacity)  # type: ignore[arg-type]
