"""What is going to be run, what not, and why: said before anything is."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from mmclipdis.apis.reproduction.cells import Cell, Table
from mmclipdis.apis.reproduction.needs import Look, Needs
from mmclipdis.apis.reproduction.places import Places
from mmclipdis.apis.reproduction.tables import tables

#: How many names of cells stand behind something that several lack.
_NAMED = 2


def select_cells(table: Table, only: Sequence[str]) -> list[Cell]:
    """The cells that patterns choose: ``ROW | COLUMN``, or a row or a column; all without one.

    Raises:
        ValueError: a pattern chooses none.
    """
    chosen: dict[str, Cell] = {}
    for pattern in only:
        found = {cell.name: cell for cell in table.cells if _chosen(cell, pattern)}
        if not found:
            rows = "; ".join(row.name for row in table.rows)
            raise ValueError(
                f"--only {pattern!r} fits no cell of {table.name}; rows: {rows}; columns: "
                f"{', '.join(table.columns)}"
            )
        chosen |= found
    return [cell for cell in table.cells if not only or cell.name in chosen]


def _chosen(cell: Cell, pattern: str) -> bool:
    if "|" in pattern:
        row, _, column = (part.strip() for part in pattern.partition("|"))
        return fnmatch.fnmatchcase(cell.row, row) and fnmatch.fnmatchcase(cell.column, column)
    return any(fnmatch.fnmatchcase(word, pattern) for word in (cell.row, cell.column))


def plan_lines(table: Table, cells: Sequence[Cell], needs: Mapping[str, Needs]) -> Iterator[str]:
    """What can be run, what is downloaded and trained for it, and what gets the rest."""
    ready = [cell for cell in cells if not needs[cell.name].missing]
    yield f"{table.name}: {table.title} ({table.paper})"
    yield f"can be run: {len(ready)} of {len(cells)} cells"
    downloads = _by_line(ready, lambda cell: needs[cell.name].downloads)
    if downloads:
        yield "downloaded before:"
        yield from (f"  {line}" for line in downloads)
    trained = {cell.training: None for cell in ready if cell.training and needs[cell.name].trains}
    if trained:
        yield "trained before:"
        for training in trained:
            options = f" with {' '.join(training.options)}" if training.options else ""
            yield f"  {training.model}{options}"
    missing = _by_line(cells, lambda cell: needs[cell.name].missing)
    if missing:
        yield "missing:"
        for line, names in missing.items():
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            yield f"  {line}; for {'; '.join(names[:_NAMED])}{more}"


def _by_line(cells: Iterable[Cell], of: Callable[[Cell], Sequence[str]]) -> dict[str, list[str]]:
    """Lines, each with the cells that it is said of."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        for line in of(cell):
            found.setdefault(line, []).append(cell.name)
    return found


def list_lines(places: Places) -> Iterator[str]:
    """All tables: how many cells each has, and which of its columns lack data.

    Reads one config a column: all of them would take a minute.
    """
    look = Look(places, deep=False)
    for table in tables():
        first = {cell.column: cell for cell in reversed(table.cells)}
        lacking = [name for name in table.columns if name in first and look.data(first[name])]
        data = f"; no data for {', '.join(lacking)}" if lacking else ""
        others = f" ({', '.join(table.aliases)})" if table.aliases else ""
        title = f"{table.name}{others}: {table.title} ({table.paper})"
        yield f"{title}: {len(table.cells)} cells{data}"
