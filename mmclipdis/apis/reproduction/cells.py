"""A published table: rows of cells, each a test with the numbers that it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Training:
    """A training before a test: an entry of the metafiles and options for ``--cfg-options``."""

    model: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One test: a row on a data set, with all metrics that the table has of it.

    Attributes:
        table, row, column: titles; together the name of the cell.
        model: the entry of the metafiles whose config is tested.
        published: the numbers, by the metric's title; none where only a figure shows them.
        sources: where each stands.
        options: for ``--cfg-options``; ``{checkpoint}`` is the file of the training.
        checkpoint: whether ``tools/test.py`` gets the checkpoint of the training.
        training: what is trained first; None: nothing.
    """

    table: str
    row: str
    column: str
    model: str
    published: Mapping[str, float]
    sources: Mapping[str, str]
    options: tuple[str, ...] = ()
    checkpoint: bool = False
    training: Training | None = None

    @property
    def name(self) -> str:
        """Row and column."""
        return f"{self.row} | {self.column}"


@dataclass(frozen=True)
class Row:
    """A row, with its cells by column; a column without a published number has none,
    unless nothing of the row is published."""

    name: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Table:
    """A published table.

    Attributes:
        name: ``METHOD/WORD``.
        paper, title: where it stands, and of what it is.
        columns: title -> ``Dataset`` of the metafiles.
        metrics: title, the key of the metafiles -> what ``tools/test.py`` calls it.
        rows: in the order of the paper.
        average: whether the mean of a row is a last column.
        gates: metric -> largest difference that counts as the same, in points.
        reasons: known reasons of a difference.
        page: of the documentation, where they are explained.
        file: the ``tables.yml``, from the root.
        aliases: other names that are understood.
    """

    name: str
    paper: str
    title: str
    columns: Mapping[str, str]
    metrics: Mapping[str, str]
    rows: tuple[Row, ...]
    average: bool = False
    gates: Mapping[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    page: str = ""
    file: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, row by row."""
        return tuple(cell for row in self.rows for cell in row.cells.values())
