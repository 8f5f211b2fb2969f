"""One picture of how alike classes are: heat maps, histograms and the most similar pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from mmclipdis.visualization.feature_figure import check_picture_name

#: More classes than these get only some of their names written beside the heat map.
ALL_NAMED, SOME_NAMED = 60, 45
#: Up to this many classes the cosines stand in the cells.
WITH_NUMBERS = 20
#: Bars that the panel of pairs has at most, and letters that a name has.
MAX_BARS, MAX_LETTERS = 40, 26
BINS = [i / 50 for i in range(-50, 51)]
COLOURS = ("tab:blue", "tab:orange")
#: Inches: smallest and largest heat map, room of a class in it, its labels; a bar.
SMALLEST, LARGEST, CELL, LABELS, BAR = 4.5, 8.5, 0.34, 1.8, 0.23
DPI = 110


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
    bars = min(top, MAX_BARS, len(names) * (len(names) - 1) // 2)
    figure, heat, (histogram, pairs) = _layout(len(matrices), len(names), bars)
    for index, (axes, (title, matrix)) in enumerate(zip(heat, matrices.items(), strict=True)):
        image = _draw_heat_map(axes, title, matrix[np.ix_(order, order)])
        _name_classes(axes, names, order, rows=index == 0)
    lowest = min(float(matrix.min()) for matrix in matrices.values())
    bar = heat[0].figure.colorbar(
        image, ax=heat, shrink=0.8, pad=0.02, extend="min" if lowest < 0 else "neither"
    )
    bar.set_label("cosine" + (" (below 0: black)" if lowest < 0 else ""), size=9)
    _draw_histogram(histogram, matrices)
    _draw_pairs(pairs, matrices, names, bars)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
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


def _layout(
    count: int, classes: int, bars: int
) -> tuple[Figure, Sequence[Axes], tuple[Axes, Axes]]:
    """Figure, ``count`` axes for heat maps, and those of histogram and pairs.

    A single heat map has them on its right, two have them below.
    """
    side = float(np.clip(CELL * classes, SMALLEST, LARGEST))
    listed = 1.1 + BAR * max(bars, 8)
    beside = count == 1
    height = max(side + LABELS, 2.8 + listed) if beside else side + LABELS + listed
    width = side + LABELS + 7.2 if beside else 2 * side + LABELS + 1.4
    figure = Figure(figsize=(width, height), layout="constrained")
    # squeeze=False gives an array of subfigures whatever their number.
    if beside:
        ratios = (side + LABELS + 0.8, 6.4)
        parts = figure.subfigures(1, 2, squeeze=False, width_ratios=ratios).ravel()
        below = parts[1].subplots(2, 1, height_ratios=(height - listed, listed))
    else:
        ratios = (side + LABELS, listed)
        parts = figure.subfigures(2, 1, squeeze=False, height_ratios=ratios).ravel()
        below = parts[1].subplots(1, 2)
    heat = parts[0].subplots(1, count, squeeze=False)[0]
    return figure, list(heat), (below[0], below[1])


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
            text = f"{value:.2f}".replace("0.", ".")
            axes.text(
                j, i, text, size=9 if count <= 10 else 7, color=colour, ha="center", va="center"
            )
    return image


def _name_classes(axes: Axes, names: Sequence[str], order: Sequence[int], rows: bool) -> None:
    """Write the names of all or of some classes beside a heat map; ``rows``: on its left, too."""
    count = len(names)
    step = 1 if count <= ALL_NAMED else -(-count // SOME_NAMED)
    places = list(range(0, count, step))
    side = float(np.clip(CELL * count, SMALLEST, LARGEST))
    size = min(9.0, 0.8 * 72 * side / len(places))
    indexed = step > 1
    labels = [
        f"{order[p]}  {_short(names[order[p]])}" if indexed else _short(names[order[p]])
        for p in places
    ]
    axes.set_xticks(places, labels, rotation=90, size=size, parse_math=False)
    axes.set_yticks(places, labels if rows else [""] * len(places), size=size, parse_math=False)
    axes.tick_params(length=2, pad=2)
    if indexed:
        axes.set_xlabel(f"one of {step} of the {count} classes is named, with its index", size=9)


def _draw_histogram(axes: Axes, matrices: Mapping[str, np.ndarray]) -> None:
    for colour, (title, matrix) in zip(COLOURS, matrices.items(), strict=False):
        values = matrix[np.triu_indices(len(matrix), 1)]
        weights = np.full(len(values), 100 / len(values))
        # The last bin holds 1 itself; rounding may lie beyond.
        axes.hist(np.clip(values, -1, 1), BINS, weights=weights, color=colour, alpha=0.6,
            label=title)  # fmt: skip
        axes.axvline(float(values.mean()), color=colour, ls="--", lw=1.2,
            label=f"its mean {values.mean():.3f}")  # fmt: skip
    axes.set_xlim(-1, 1)
    axes.set_xlabel("cosine of two different classes", size=10)
    axes.set_ylabel("% of pairs", size=10)
    axes.legend(fontsize=9, loc="upper left")


def _draw_pairs(
    axes: Axes, matrices: Mapping[str, np.ndarray], names: Sequence[str], bars: int
) -> None:
    first = next(iter(matrices.values()))
    rows, columns = np.triu_indices(len(names), 1)
    best = np.argsort(-first[rows, columns], kind="stable")[:bars]
    thickness = 0.8 / len(matrices)
    places = np.arange(len(best))
    for index, (title, matrix) in enumerate(matrices.items()):
        values = matrix[rows[best], columns[best]]
        middle = places + (index - (len(matrices) - 1) / 2) * thickness
        axes.barh(middle, values, thickness, color=COLOURS[index], alpha=0.8, label=title)
        for y, value in zip(middle, values, strict=True):
            at = max(float(value), 0) + 0.01
            axes.text(at, y, f"{value:.2f}", size=7, va="center", ha="left")
    labels = [f"{_short(names[rows[b]])} – {_short(names[columns[b]])}" for b in best]
    axes.set_yticks(places, labels, size=8, parse_math=False)
    axes.set_ylim(max(len(best), 1) - 0.4, -0.6)
    lowest = min(float(m[rows[best], columns[best]].min(initial=0)) for m in matrices.values())
    axes.set_xlim(min(lowest * 1.1, 0), 1.12)
    axes.set_xticks([i / 5 for i in range(int(lowest * 5), 6)])
    axes.tick_params(axis="y", length=0)
    heading = f"The {bars} most similar pairs of {next(iter(matrices))}"
    if len(matrices) > 1:
        heading += " (blue), and projected (orange)"
    axes.set_title(heading, size=11, parse_math=False)


def _short(name: str) -> str:
    """A name that leaves room for the picture; the JSON has all of it."""
    return name if len(name) <= MAX_LETTERS else name[: MAX_LETTERS - 1].rstrip() + "…"
