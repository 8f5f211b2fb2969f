"""One measured value over another: a curve, or points with names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmclipdis.utils.figures import check_picture_name, write_figure
from mmclipdis.utils.fonts import names_in_figures

DPI = 100


def draw_curve(
    x: Sequence[float],
    y: Sequence[float],
    path: str | Path,
    title: str,
    labels: tuple[str, str],
) -> Path:
    """Draw ``y`` over ``x``, each point a dot, the largest one named, and write the picture.

    Args:
        x, y: Of the points, in the order of the line.
        path: File to write; its ending says the format.
        title: Above the panel.
        labels: Of the two axes.

    Raises:
        ValueError: no points, numbers of x and y that differ, or an ending of no picture format.
    """
    path = check_picture_name(path)
    if not x or len(x) != len(y):
        raise ValueError(f"{len(x)} places and {len(y)} values: expected a value a place")
    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.plot(x, y, marker="o", ms=4, lw=1.5, color="tab:blue")
    best = max(range(len(y)), key=lambda index: y[index])
    axes.plot(x[best], y[best], marker="o", ms=9, mfc="none", mec="tab:red", mew=1.5)
    axes.margins(y=0.15)
    axes.annotate(f"{y[best]:.1f}", (x[best], y[best]), (6, 6), textcoords="offset points", size=9)
    _finish(axes, title, labels)
    write_figure(figure, path, DPI)
    return path


def draw_scatter(
    panels: Mapping[str, Mapping[str, tuple[float, float]]],
    path: str | Path,
    label: str,
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Draw points with their names, a panel for each quantity on the y axis.

    Args:
        panels: Label of the y axis -> name of a point -> its (x, y).
        path: File to write; its ending says the format.
        label: Of the x axis.
        notes: Text above a panel, such as a correlation.

    Raises:
        ValueError: no panel, one without points, or an ending of no picture format.
    """
    path = check_picture_name(path)
    empty = [name for name, points in panels.items() if not points]
    if not panels or empty:
        raise ValueError(f"no points to draw{' for ' + empty[0] if empty else ''}")
    names = [name for points in panels.values() for name in points]
    with names_in_figures(names):
        figure = Figure(figsize=(5.2 * len(panels), 4.2), layout="constrained")
        for axes, (quantity, points) in zip(figure.subplots(1, len(panels), squeeze=False)[0],
                                            panels.items()):  # fmt: skip
            _draw_points(axes, points)
            _finish(axes, (notes or {}).get(quantity, ""), (label, quantity))
        write_figure(figure, path, DPI)
    return path


def _draw_points(axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    middle = sum(x for x, _ in points.values()) / len(points)
    for name, (x, y) in points.items():
        axes.plot(x, y, marker="o", ms=6, color="tab:blue")
        right = x > middle  # the text goes to where there is room
        axes.annotate(
            name, (x, y), (-7 if right else 7, 5), textcoords="offset points", size=8,
            ha="right" if right else "left", parse_math=False,
        )  # fmt: skip
    axes.margins(0.15)


def _finish(axes: Axes, title: str, labels: tuple[str, str]) -> None:
    axes.set_title(title, size=10, parse_math=False)
    axes.set_xlabel(labels[0], size=9)
    axes.set_ylabel(labels[1], size=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
