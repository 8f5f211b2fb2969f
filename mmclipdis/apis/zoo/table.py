"""The list of models as a table, for the command and for the pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mmclipdis.apis.zoo.listing import ModelInfo
from mmclipdis.apis.zoo.sources import Weights

COLUMNS = ("model", "task", "method", "size", "licence of the weights", "to download")
#: In a table of results.
RESULTS = ("model", "size", "results")


def as_table(models: Iterable[ModelInfo], markdown: bool = False, results: bool = False) -> str:
    """Models as aligned columns, or as a table of Markdown.

    Args:
        models: What :func:`mmclipdis.apis.zoo.models` gives.
        markdown: For a page; names are in backticks there.
        results: Show published results in place of licence and downloads.
    """
    rows = [_results(info, markdown) if results else _row(info, markdown) for info in models]
    columns = RESULTS if results else COLUMNS
    if not markdown:
        return _aligned([columns, *rows])
    rule = ["---:" if column == "size" else "---" for column in columns]
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, rule, *rows))


def size_of(info: ModelInfo) -> str:
    """Parameters as people say them: ``150 M``, ``1.3 M``."""
    if info.parameters is None:
        return "?"
    millions = info.parameters / 1e6
    return f"{millions:.1f} M" if millions < 10 else f"{millions:.0f} M"


def downloads_of(info: ModelInfo) -> str:
    """What has to come to the machine, in words."""
    return "; ".join(map(_words, info.downloads)) or "nothing"


def _words(weights: Weights) -> str:
    if weights.kind == "trained":
        return f"{weights.title} (by hand)" if weights.page else weights.title
    return (
        f"{weights.name} (by hand)" if weights.kind == "file" and not weights.url else weights.title
    )


def _row(info: ModelInfo, markdown: bool) -> tuple[str, ...]:
    name = f"{_name(info, markdown)}{' (default)' if info.default else ''}"
    return (name, info.task, info.method, size_of(info), info.license or "-", downloads_of(info))


def _results(info: ModelInfo, markdown: bool) -> tuple[str, ...]:
    return (_name(info, markdown), size_of(info), "; ".join(info.results) or "-")


def _name(info: ModelInfo, markdown: bool) -> str:
    return f"`{info.name}`" if markdown else info.name


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
