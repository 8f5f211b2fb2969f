"""One picture of the statistics of a tower's blocks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmclipdis.utils.figures import check_picture_name, write_figure
from mmclipdis.visualization.block_statistics import PARTS

#: Statistic -> what stands above its panel.
PANELS = {
    "norm": "norm of a token, mean",
    "entropy": "entropy over channels, 1: all alike",
    "maximum": "largest entry of an image, mean",
}
LABELS = {
    "residual": "residual X",
    "attention": "attention A",
    "ffn": "feed-forward F",
    "output": "output X + A + F",
}
COLOURS = {
    "residual": "tab:red",
    "attention": "tab:blue",
    "ffn": "tab:green",
    "output": "tab:gray",
}
#: Times the next largest value from which a panel has a logarithmic scale.
WIDE = 30
DPI = 100


def draw_block_statistics(report: Mapping[str, Any], title: str, path: str | Path) -> Path:
    """Draw norm, entropy and maximum by block, and the channel means of the last block.

    Args:
        report: Of :meth:`~mmclipdis.visualization.block_statistics.BlockStatistics.report`.
        title: Above the panels.
        path: File to write; its ending says the format.

    Raises:
        ValueError: an ending of no picture format.
    """
    path = check_picture_name(path)
    blocks = report["blocks"]
    figure = Figure(figsize=(10.5, 6.6), layout="constrained")
    figure.suptitle(title, size=11, parse_math=False)
    panels = figure.subplots(2, 2)
    for axes, (name, heading) in zip(panels.flat, PANELS.items()):
        _draw_by_block(axes, blocks, name)
        axes.set_title(heading, size=10)
    panels[0, 0].legend([LABELS[part] for part in PARTS], fontsize=8, frameon=False)
    _draw_channels(panels[1, 1], blocks)
    write_figure(figure, path, DPI)
    return path


def _draw_by_block(axes: Axes, blocks: list[Mapping[str, Any]], name: str) -> None:
    values = {part: [block[part][name] for block in blocks] for part in PARTS}
    for part in PARTS:
        style = "--" if part == "output" else "-"
        axes.plot(values[part], style, color=COLOURS[part], marker="o", ms=3, lw=1.4)
    every = [value for line in values.values() for value in line]
    if name != "entropy" and min(every) > 0 and max(every) > WIDE * min(every):
        axes.set_yscale("log")
    elif name != "entropy":
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("block", size=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)


def _draw_channels(axes: Axes, blocks: list[Mapping[str, Any]]) -> None:
    last = blocks[-1]
    for part in ("residual", "ffn", "attention"):
        means = last[part]["channel_mean"]
        axes.plot(means, color=COLOURS[part], lw=0.7, alpha=0.85, label=LABELS[part])
    axes.set_title(f"mean of each channel, block {len(blocks) - 1}", size=10)
    axes.set_xlabel("channel", size=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
