"""Columns and cells of the tables of results."""

from __future__ import annotations

from collections.abc import Iterable

#: Columns of what a photo is called, in every table.
PHOTO, FRAME = "photo", "frame"
#: How a cell begins that a spreadsheet would compute.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def columns_of(tables: Iterable[Iterable[str]]) -> list[str]:
    """Columns of several tables as one: those of the first, and what others have beside."""
    found = dict.fromkeys(name for table in tables for name in table)
    first = [name for name in (PHOTO, FRAME) if name in found]
    return [*first, *(name for name in found if name not in first)]


def no_formula(cell: object) -> object:
    """The cell with an apostrophe in front where it would calculate; numbers stay as they are."""
    if isinstance(cell, str) and cell.startswith(_FORMULA) and not _is_number(cell):
        return f"'{cell}"
    return cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
