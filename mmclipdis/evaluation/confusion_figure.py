"""A picture of what is taken for what: shares of every row, and the pairs confused most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mmclipdis.utils.figures import write_figure
from mmclipdis.utils.fonts import names_in_figures

#: More classes than these get only some of their names written beside the matrix.
ALL_NAMED, SOME_NAMED = 80, 45
#: Up to this many classes the shares stand in the cells.
WITH_NUMBERS = 24
#: Above the pairs: those with the most pixels or boxes come first.
LISTED = "confused most, by number; % of the labelled"
#: Pairs of classes that are listed, and letters that a name has.
MOST_PAIRS, MAX_LETTERS = 20, 26
#: Inches: smallest matrix, largest with all names, a class in it; margins; a listed pair.
SMALLEST, LARGEST, CELL, MARGIN, LINE = 4.0, 12.0, 0.34, 0.5, 0.24
NAME_SIZE, DPI = 9.0, 110


def draw_confusion(
    matrix: NDArray[np.int64],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    path: str | Path,
) -> None:
    """Draw a confusion matrix into a file; its ending says the format.

    Args:
        matrix: Counts (R, C), labelled classes by predicted ones.
        rows: R names.
        columns: C names.
        title: Of the picture.
        path: To write.
    """
    with names_in_figures([*rows, *columns]):
        write_figure(_figure(matrix, rows, columns, title), path, DPI)


def confusion_picture(
    matrix: NDArray[np.int64], rows: Sequence[str], columns: Sequence[str], title: str
) -> NDArray[np.uint8]:
    """The same picture as an RGB array (H, W, 3), 0 to 255."""
    with names_in_figures([*rows, *columns]):
        figure = _figure(matrix, rows, columns, title)
        figure.set_dpi(DPI)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def row_shares(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Percent (R, C) of each row; nan for a row without counts."""
    totals = matrix.sum(1, keepdims=True)
    return np.where(totals > 0, 100 * matrix / np.maximum(totals, 1), np.nan)


def most_confused(
    matrix: NDArray[np.int64], rows: Sequence[str], columns: Sequence[str], most: int
) -> list[tuple[str, str, float]]:
    """Labelled class, predicted one and percent of the row: the largest counts off the diagonal."""
    counts = matrix.copy()
    side = min(counts.shape)
    counts[np.arange(side), np.arange(side)] = 0
    shares = row_shares(matrix)
    best = np.argsort(-counts, axis=None, kind="stable")[:most]
    places = (np.unravel_index(place, counts.shape) for place in best)
    return [(rows[i], columns[j], float(shares[i, j])) for i, j in places if counts[i, j]]


def _figure(
    matrix: NDArray[np.int64], rows: Sequence[str], columns: Sequence[str], title: str
) -> Figure:
    height, width = matrix.shape
    size = max(matrix.shape)
    # a class has at least one pixel: what is confused is not averaged away
    side = max(min(max(CELL * size, SMALLEST), LARGEST), size / DPI)
    marked = {axis: _marks(names) for axis, names in (("x", columns), ("y", rows))}
    room = {axis: _room(list(texts.values())) for axis, texts in marked.items()}
    pairs = most_confused(matrix, rows, columns, MOST_PAIRS)
    lines = [f"{_short(a)} → {_short(b)}  {share:.1f} %" for a, b, share in pairs]
    listed = _room([LISTED, *lines]) + MARGIN
    left, bottom = room["y"] + MARGIN, room["x"] + MARGIN
    whole = (left + side * width / size + 1.1 + listed, bottom + side * height / size + MARGIN)
    figure = Figure(figsize=(whole[0], max(whole[1], LINE * (len(lines) + 3))))
    total = figure.get_figheight()
    top = total - MARGIN - side * height / size
    place = (left / whole[0], top / total, side * width / size / whole[0])
    axes = figure.add_axes((*place, side * height / size / total))
    _draw(axes, matrix)
    _name(axes, marked, len(rows))
    axes.set_title(title, size=11, parse_math=False)
    text = "\n".join([LISTED, "", *lines] if lines else ["no confusion"])
    corner = (left + side * width / size + 1.1) / whole[0]
    figure.text(corner, 1 - MARGIN / total, text, size=NAME_SIZE, va="top", parse_math=False)
    return figure


def _draw(axes: Axes, matrix: NDArray[np.int64]) -> None:
    shares = row_shares(matrix)
    # the square root shows what is a few percent
    image = axes.imshow(
        shares, cmap="viridis", norm=PowerNorm(0.5, 0, 100), interpolation="nearest"
    )
    axes.set_facecolor("lightgrey")  # rows without counts
    scale = axes.inset_axes((1.02, 0, 0.03, 1))
    axes.figure.colorbar(image, cax=scale)
    if len(matrix) > WITH_NUMBERS:
        return
    for i, j in np.argwhere(matrix > 0):
        colour = "black" if shares[i, j] > 50 else "white"
        axes.text(j, i, f"{shares[i, j]:.0f}", size=7, color=colour, ha="center", va="center")


def _name(axes: Axes, marked: dict[str, dict[int, str]], count: int) -> None:
    for axis, rotation, word in (("x", 90, "predicted"), ("y", 0, "labelled")):
        places, texts = list(marked[axis]), list(marked[axis].values())
        set_ticks = axes.set_xticks if axis == "x" else axes.set_yticks
        set_ticks(places, texts, rotation=rotation, size=NAME_SIZE, parse_math=False)
        some = f"; one in {places[1]} is named" if len(places) < count and axis == "x" else ""
        set_label = axes.set_xlabel if axis == "x" else axes.set_ylabel
        set_label(f"{word} (shares of each row in %){some}" if axis == "x" else word, size=9)
    axes.tick_params(length=2, pad=2)


def _marks(names: Sequence[str]) -> dict[int, str]:
    """Place -> what stands there: all names, or some with their places."""
    if len(names) <= ALL_NAMED:
        return {place: _short(name) for place, name in enumerate(names)}
    step = -(-len(names) // SOME_NAMED)
    return {p: f"{p}  {_short(names[p])}" for p in range(0, len(names), step)}


def _room(texts: Sequence[str]) -> float:
    """Inches that the longest of the texts takes, and a little more."""
    return 0.2 + 0.6 * NAME_SIZE / 72 * max(map(len, texts), default=0)


def _short(name: str) -> str:
    return name if len(name) <= MAX_LETTERS else name[: MAX_LETTERS - 1].rstrip() + "…"
