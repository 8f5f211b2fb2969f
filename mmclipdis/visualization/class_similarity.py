"""One picture of how alike classes are: heat maps, histograms and the most similar pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from mmclipdis.utils.figures import check_picture_name, write_figure
from mmclipdis.utils.fonts import names_in_figures

#: More classes than these get only some of their names written beside the heat map.
ALL_NAMED, SOME_NAMED = 80, 45
#: Up to this many classes the cosines stand in the cells.
WITH_NUMBERS = 20
#: Bars that the panel of pairs has at most, and letters that a name has.
MAX_BARS, MAX_LETTERS = 40, 26
BINS = [i / 50 for i in range(-50, 51)]
COLOURS = ("tab:blue", "tab:orange")
#: Inches: smallest and largest heat map, room of a class in it, the heading above a panel, the
#: scale beside the heat maps, height of a histogram, of a bar, ticks and label of an axis.
SMALLEST, LARGEST, CELL = 4.5, 8.5, 0.34
HEADING, SCALE, HISTOGRAM, BAR, AXIS = 0.45, 0.95, 2.6, 0.27, 0.65
NAME_SIZE, DPI = 9.0, 110


def cluster_order(matrix: np.ndarray) -> list[int]:
    """Class indices in an order that puts similar classes side by side.

    Leaves of average linkage over the distance ``1 - cosine``.

    Args:
        matrix: Cosines ``(M, M)``, symmetric, ``M >= 2``.
    """
    distance = np.clip(1 - np.asarray(matrix, dtype=np.float64), 0, 2)
    tree = linkage(squareform(distance, checks=False), "average")
    return [int(i) for i in leaves_list(tree)]


def draw_class_similarity(
    matrices: Mapping[str, np.ndarray],
    names: Sequence[str],
    path: str | Path,
    order: Sequence[int] | None = None,
    top: int = 20,
) -> Path:
    """Draw the cosines between classes before and after a projection, and write the picture.

    Heat maps are grey from 0 (black, and all below) to 1 (white), whatever the values are, so that
    pictures can be compared. The pairs are the most similar ones of the first matrix.

    Args:
        matrices: Title -> raw cosines ``(M, M)``; one, or one before and one after.
        names: Of the ``M`` classes.
        path: File to write; its ending says the format.
        order: Class indices from top to bottom; None keeps theirs.
        top: Pairs to draw, at most 40.

    Raises:
        ValueError: for none or more than two matrices, another shape than the names ask for, an
            order that is no permutation, or an ending of no picture format.
    """
    path = check_picture_name(path)
    order = list(range(len(names))) if order is None else list(order)
    _check(matrices, names, order)
    first = next(iter(matrices.values()))
    pairs = _most_similar(first, min(top, MAX_BARS))
    pair_names = [f"{_short(names[i])} – {_short(names[j])}" for i, j in pairs]
    labels = _labels(names, order)
    with names_in_figures(names):
        figure, heat, histogram, bars = _layout(len(matrices), len(names), labels, pair_names)
        for axes, (title, matrix) in zip(heat, matrices.items(), strict=True):
            image = _draw_heat_map(axes, title, matrix[np.ix_(order, order)])
            _name_classes(axes, labels, order, rows=axes is heat[0])
        lowest = min(float(matrix.min()) for matrix in matrices.values())
        side = _side(len(names))
        scale = heat[-1].inset_axes((1 + 0.12 / side, 0, 0.18 / side, 1))
        figure.colorbar(image, cax=scale, extend="min" if lowest < 0 else "neither")
        scale.set_ylabel("cosine" + (" (below 0: black)" if lowest < 0 else ""), size=9)
        _draw_histogram(histogram, matrices)
        _draw_pairs(bars, matrices, pairs, pair_names)
        write_figure(figure, path, DPI)
    return path


def _check(matrices: Mapping[str, np.ndarray], names: Sequence[str], order: Sequence[int]) -> None:
    if not 1 <= len(matrices) <= 2:
        raise ValueError(f"{len(matrices)} matrices: one, or one before and one after, is drawn")
    for title, matrix in matrices.items():
        if len(names) < 2 or matrix.shape != (len(names), len(names)):
            raise ValueError(
                f"{title!r} has shape {matrix.shape} for {len(names)} class names, expected "
                "(M, M) with M names, at least two"
            )
    if sorted(order) != list(range(len(names))):
        raise ValueError(f"order is no permutation of the class indices 0 to {len(names) - 1}")


def _most_similar(matrix: np.ndarray, count: int) -> list[tuple[int, int]]:
    """At most ``count`` pairs of classes by descending cosine."""
    rows, columns = np.triu_indices(len(matrix), 1)
    best = np.argsort(-matrix[rows, columns], kind="stable")[:count]
    return [(int(rows[b]), int(columns[b])) for b in best]


def _labels(names: Sequence[str], order: Sequence[int]) -> dict[int, str]:
    """Place in the heat map -> what stands there: all names, or some with their indices."""
    count = len(names)
    if count <= ALL_NAMED:
        return {place: _short(names[index]) for place, index in enumerate(order)}
    step = -(-count // SOME_NAMED)
    return {p: f"{order[p]}  {_short(names[order[p]])}" for p in range(0, count, step)}


def _side(classes: int) -> float:
    """Inches of a heat map."""
    return float(np.clip(CELL * classes, SMALLEST, LARGEST))


def _room(texts: Iterable[str], size: float) -> float:
    """Inches that the longest of the texts takes, and a little more."""
    return 0.2 + 0.62 * size / 72 * max(map(len, texts), default=0)


def _layout(
    count: int, classes: int, labels: Mapping[int, str], pair_names: Sequence[str]
) -> tuple[Figure, list[Axes], Axes, Axes]:
    """Figure, ``count`` axes for heat maps, those of the histogram and of the pairs.

    A single heat map has the others on its right, two have them below.
    """
    side, room = _side(classes), _room(labels.values(), NAME_SIZE)
    names = _room(pair_names, 8)
    listed = BAR * max(len(pair_names), 6)
    gap = 0.3
    lefts = [room + i * (side + gap) for i in range(count)]
    beside = lefts[-1] + side + SCALE
    below = HEADING + side + room + AXIS
    if count == 1:
        panel = 5.0
        width = beside + max(names, AXIS) + panel + gap
        place = (beside + max(names, AXIS), HEADING, panel, HISTOGRAM)
        bars = (place[0], 2 * HEADING + HISTOGRAM + AXIS, panel, listed)
    else:
        width, panel = beside, beside / 2
        place = (AXIS, below, panel - AXIS - gap, listed)
        bars = (panel + names, below, panel - names - gap, listed)
    height = max(below, bars[1] + listed + AXIS)
    figure = Figure(figsize=(width, height))

    def panel_at(left: float, top: float, wide: float, high: float) -> Axes:
        bottom = height - top - high
        return figure.add_axes((left / width, bottom / height, wide / width, high / height))

    heat = [panel_at(left, HEADING, side, side) for left in lefts]
    return figure, heat, panel_at(*place), panel_at(*bars)


def _draw_heat_map(axes: Axes, title: str, matrix: np.ndarray) -> AxesImage:
    count = len(matrix)
    upper = matrix[np.triu_indices(count, 1)]
    # Several classes a pixel are averaged by matplotlib, one class over many pixels stays a square.
    image = axes.imshow(matrix, cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    axes.set_title(f"{title}: mean cosine {upper.mean():.3f}", size=12, parse_math=False)
    if count <= WITH_NUMBERS:
        for i, j in np.argwhere(~np.eye(count, dtype=bool)):
            value = float(matrix[i, j])
            colour = "black" if value > 0.55 else "white"
            text = f"{round(value, 2) + 0.0:.2f}".replace("0.", ".")  # without -0.00
            size = 9 if count <= 10 else 7
            axes.text(j, i, text, size=size, color=colour, ha="center", va="center")
    return image


def _name_classes(axes: Axes, labels: Mapping[int, str], order: Sequence[int], rows: bool) -> None:
    """Write the labels below a heat map, and on its left with ``rows``."""
    places, texts = list(labels), list(labels.values())
    count = len(order)
    size = min(NAME_SIZE, 0.8 * 72 * _side(count) / len(places))
    axes.set_xticks(places, texts, rotation=90, size=size, parse_math=False)
    axes.set_yticks(places, texts if rows else [""] * len(places), size=size, parse_math=False)
    axes.tick_params(length=2, pad=2)
    if len(places) < count:
        sorting = "" if list(order) == list(range(count)) else ", similar ones side by side"
        text = f"one in {places[1]} of the classes 0 to {count - 1} is named{sorting}"
        axes.set_xlabel(text, size=9)


def _draw_histogram(axes: Axes, matrices: Mapping[str, np.ndarray]) -> None:
    for colour, (title, matrix) in zip(COLOURS, matrices.items(), strict=False):
        values = matrix[np.triu_indices(len(matrix), 1)]
        weights = np.full(len(values), 100 / len(values))
        # The last bin holds 1 itself; rounding may lie beyond.
        label = f"{title} (mean {values.mean():.3f}, dashed)"
        axes.hist(np.clip(values, -1, 1), BINS, weights=weights, color=colour, alpha=0.6,
            label=label)  # fmt: skip
        axes.axvline(float(values.mean()), color=colour, ls="--", lw=1.2)
    axes.set_xlim(-1, 1)
    axes.set_xlabel("cosine of two different classes", size=10)
    axes.set_ylabel("% of pairs", size=10)
    # Above the panel, since bars can be anywhere in it.
    axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2, frameon=False)


def _draw_pairs(
    axes: Axes,
    matrices: Mapping[str, np.ndarray],
    pairs: Sequence[tuple[int, int]],
    pair_names: Sequence[str],
) -> None:
    if not pairs:
        axes.axis("off")
        return
    thickness = 0.8 / len(matrices)
    lowest = 0.0
    for index, matrix in enumerate(matrices.values()):
        for place, (i, j) in enumerate(pairs):
            value = float(matrix[i, j])
            lowest = min(lowest, value)
            middle = place + (index - (len(matrices) - 1) / 2) * thickness
            axes.barh(middle, value, thickness, color=COLOURS[index], alpha=0.8)
            axes.text(max(value, 0) + 0.01, middle, f"{value:.3f}", size=7, va="center")
    axes.set_yticks(range(len(pairs)), pair_names, size=8, parse_math=False)
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.set_xlim(min(lowest * 1.1, 0), 1.12)
    axes.set_xticks([i / 5 for i in range(int(lowest * 5), 6)])
    axes.tick_params(axis="y", length=0)
    count = len(next(iter(matrices.values())))
    of = count * (count - 1) // 2
    title = f"Most similar pairs of {next(iter(matrices))} ({len(pairs)} of {of})"
    axes.set_title(title, size=11, parse_math=False)


def _short(name: str) -> str:
    """A name that leaves room for the picture; the JSON has all of it."""
    return name if len(name) <= MAX_LETTERS else name[: MAX_LETTERS - 1].rstrip() + "…"
