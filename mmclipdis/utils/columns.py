"""Columns of the tables of results."""

from __future__ import annotations

from collections.abc import Iterable

#: Columns of what a photo is called, in every table.
PHOTO, FRAME = "photo", "frame"


def columns_of(tables: Iterable[Iterable[str]]) -> list[str]:
    """Columns of several tables as one: those of the first, and what others have beside."""
    found = dict.fromkeys(name for table in tables for name in table)
    first = [name for name in (PHOTO, FRAME) if name in found]
    return [*first, *(name for name in found if name not in first)]
