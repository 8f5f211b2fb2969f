"""Maps of anchors over their photo, models below each other, in one picture."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmclipdis.utils.figures import check_picture_name, write_figure
from mmclipdis.visualization.feature_maps import GROUPS, FeatureMap

HEADINGS = {
    "attention": "Attention of the anchor's query, mean over heads",
    "cls": "Attention of the CLS query, mean over heads",
    "blocks": "Cosine of the anchor with all patches: outputs of the blocks",
    "features": "Cosine of the anchor with all patches: features of the last block",
}
COLOURS = {"attention": "inferno", "cls": "inferno", "blocks": "viridis", "features": "viridis"}
UNITS = {"attention": "%", "cls": "%", "blocks": "", "features": ""}
OPACITY = 0.75
#: Inches: width of a panel, of the row names, height of a group's heading, of a line of text.
PANEL, NAMES, HEADING, LINE = 2.4, 0.55, 0.5, 0.28


@dataclass(frozen=True)
class _Row:
    name: str
    anchor: int | None
    maps: dict[str, FeatureMap]


def draw_feature_maps(
    photo: np.ndarray,
    anchors: Sequence[tuple[int, int]],
    models: Mapping[str, Sequence[FeatureMap]],
    path: str | Path,
    smooth: bool = False,
) -> Path:
    """Draw the maps of several models over the grey photo, and write the picture.

    One part a group of maps; in it a row a model and anchor, a column a layer or feature. The
    scale of colours is each panel's own, from its smallest value to its 99th percentile, since a
    token is most similar to itself; the numbers stand below the panel.

    Args:
        photo: RGB uint8 (H, W, 3).
        anchors: Pixels (x, y) in the photo, in the order of the maps' anchor numbers.
        models: Name of a model -> its maps.
        path: File to write; its ending says the format.
        smooth: Interpolate between the patches instead of showing them as squares.

    Raises:
        ValueError: if there is no map, or the ending is of no picture format.
    """
    parts = [(group, rows) for group in GROUPS if (rows := _rows(group, models))]
    if not parts:
        raise ValueError("no maps to draw; a vision model has only those of the group 'features'")
    path = check_picture_name(path)
    figure, panels = _layout(photo, parts)
    for (group, rows), axes_of_rows in zip(parts, panels, strict=True):
        for i, (row, axes) in enumerate(zip(rows, axes_of_rows, strict=True)):
            _draw_row(photo, anchors, group, row, axes, first=i == 0, smooth=smooth)
    write_figure(figure, path, dpi=110)
    return path


def _rows(group: str, models: Mapping[str, Sequence[FeatureMap]]) -> list[_Row]:
    """The rows of one part, each with a map (or none) for every column of the part."""
    anchors = sorted({m.anchor for maps in models.values() for m in maps if m.anchor is not None})
    rows = []
    for anchor in [None, *anchors]:  # models that share an anchor stand together
        for name, maps in models.items():
            own = {m.title: m for m in maps if m.group == group and m.anchor == anchor}
            rows += [_Row(name, anchor, own)] if own else []
    return rows


def _columns(rows: Sequence[_Row]) -> list[str]:
    return list(dict.fromkeys(title for row in rows for title in row.maps))


def _layout(
    photo: np.ndarray, parts: Sequence[tuple[str, list[_Row]]]
) -> tuple[Figure, list[list[dict[str, Axes]]]]:
    """An empty figure and, for each row of each part, its axes by column title ('' the photo)."""
    height = PANEL * photo.shape[0] / photo.shape[1]
    width = NAMES + PANEL * max(1 + len(_columns(rows)) for _, rows in parts)
    total = sum(HEADING + LINE + len(rows) * (height + LINE) for _, rows in parts)
    figure = Figure(figsize=(width, total))
    top, panels = 0.0, []
    for group, rows in parts:
        middle = 1 - (top + HEADING / 2) / total
        figure.text(NAMES / width, middle, HEADINGS[group], size=13, weight="bold", va="center")
        top += HEADING + LINE
        part = []
        for _ in rows:
            axes = {}
            for column, title in enumerate(["", *_columns(rows)]):
                left = NAMES + column * PANEL
                box = (left, total - top - height, 0.94 * PANEL, height)
                axes[title] = figure.add_axes(
                    (box[0] / width, box[1] / total, box[2] / width, box[3] / total)
                )
            part.append(axes)
            top += height + LINE
        panels.append(part)
    return figure, panels


def _draw_row(
    photo: np.ndarray,
    anchors: Sequence[tuple[int, int]],
    group: str,
    row: _Row,
    axes: Mapping[str, Axes],
    first: bool,
    smooth: bool,
) -> None:
    mark = None if row.anchor is None else anchors[row.anchor]
    for title, panel in axes.items():
        panel.set_xticks([])
        panel.set_yticks([])
        if title and title not in row.maps:
            panel.axis("off")
        elif title:
            _draw_map(panel, photo, row.maps[title].values, group, smooth)
        else:
            panel.imshow(photo)
            panel.set_ylabel(_wrapped(row.name), size=9)
            if mark is not None:
                panel.set_xlabel(f"anchor {mark[0]},{mark[1]}", size=9, labelpad=2)
        if first:
            panel.set_title(title, size=11, pad=4)
        if mark is not None and panel.axison:
            panel.plot(*mark, marker="o", ms=9, mfc="none", mec="black", mew=3.5)
            panel.plot(*mark, marker="o", ms=9, mfc="none", mec="white", mew=1.8)


def _wrapped(name: str) -> str:
    """A name in lines that fit the height of a landscape photo."""
    return "\n".join(part for line in name.split("\n") for part in textwrap.wrap(line, 20))


def _draw_map(panel: Axes, photo: np.ndarray, values: np.ndarray, group: str, smooth: bool) -> None:
    height, width = photo.shape[:2]
    # Grey, so that all colour is the map's.
    panel.imshow(photo.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    shown = values * 100 if UNITS[group] else values
    low, high = float(shown.min()), float(np.quantile(shown, 0.99))
    high = high if high > low else float(shown.max())  # a single patch stands out
    panel.imshow(
        shown,
        cmap=COLOURS[group],
        vmin=low,
        vmax=high,
        alpha=OPACITY,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="bilinear" if smooth else "nearest",
    )
    panel.set_xlabel(f"{low:.2f} to {high:.2f}{UNITS[group]}", size=9, labelpad=2)
