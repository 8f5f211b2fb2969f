"""The list of models as a table, for the command and for the pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mmclipdis.apis.zoo.listing import ModelInfo

COLUMNS = ("model", "task", "method", "size", "licence of the weights", "to download")


def as_table(models: Iterable[ModelInfo], markdown: bool = False) -> str:
    """Models as aligned columns, or as a table of Markdown.

    Args:
        models: What :func:`mmclipdis.apis.zoo.models` gives.
        markdown: For a page; names are in backticks there.
    """
    rows = [_row(info, markdown) for info in models]
    if markdown:
        lines = [COLUMNS, ("---", "---", "---", "---:", "---", "---"), *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return _aligned([COLUMNS, *rows])


def size_of(info: ModelInfo) -> str:
    """Parameters as people say them: ``150 M``, ``1.3 M``."""
    if info.parameters is None:
        return "?"
    millions = info.parameters / 1e6
    return f"{millions:.1f} M" if millions < 10 else f"{millions:.0f} M"


def downloads_of(info: ModelInfo) -> str:
    """What has to come to the machine, in words."""
    kinds = {"file": " (by hand)"}
    found = []
    for one in info.downloads:
        if one.kind == "trained":
            found.append(f"{one.title}, by hand" if one.page else one.title)
        elif one.kind == "file" and one.url is None:
            found.append(f"{one.name}{kinds['file']}")
        else:
            found.append(one.title)
    return "; ".join(found) or "nothing"


def _row(info: ModelInfo, markdown: bool) -> tuple[str, ...]:
    name = f"`{info.name}`" if markdown else info.name
    name += " (default)" if info.default else ""
    return (name, info.task, info.method, size_of(info), info.license or "-", downloads_of(info))


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
