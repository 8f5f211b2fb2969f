"""Tables of ``configs/*/tables.yml`` read without the package: the reference for its own reader."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from tests.paths import ROOT

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Cell:
    """A cell: what measures it, and the number in the metafile (None: nobody printed one).

    Attributes:
        table, row, column, dataset, metric: its place; the column's title, and its data set.
        model: name of the entry that is tested.
        options: for the test.
        train: name of the entry that is trained first; None: nothing is.
        train_options: for the training.
        published: the number.
        entry: whose number it is; "" without one.
    """

    table: str
    row: str
    column: str
    dataset: str
    metric: str
    model: str
    options: tuple[str, ...]
    train: str | None
    train_options: tuple[str, ...]
    published: float | None
    entry: str


@functools.cache
def read(path: Path) -> Any:
    with path.open(encoding="utf-8") as file:
        return yaml.load(file, Loader=LOADER)


@functools.cache
def entries() -> dict[str, dict[str, Any]]:
    """All entries of all metafiles, by name."""
    files = sorted(ROOT.glob("configs/*/metafile.yml"))
    return {entry["Name"]: entry for file in files for entry in read(file)["Models"]}


def files() -> list[Path]:
    return sorted(ROOT.glob("configs/*/tables.yml"))


def tables() -> list[tuple[str, dict[str, Any]]]:
    """Folder of configs and table, for all tables."""
    return [(file.parent.name, table) for file in files() for table in read(file)["Tables"]]


def named(patterns: str | Sequence[str]) -> list[str]:
    """Entries that a row's ``Models`` name."""
    asked = [patterns] if isinstance(patterns, str) else patterns
    return [name for name in entries() if any(fnmatchcase(name, one) for one in asked)]


def results(row: Mapping[str, Any], names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Entry and result of those that a row is about."""
    for name in names:
        for result in entries()[name].get("Results", ()):
            fits = result["Source"].startswith(row.get("Source", ""))
            if fits and result.get("Variant") == row.get("Variant"):
                yield name, result


@functools.cache
def known_pairs() -> frozenset[tuple[str, str]]:
    """Data sets and metrics that some entry has a result of."""
    every = (result for entry in entries().values() for result in entry.get("Results", ()))
    return frozenset((one["Dataset"], metric) for one in every for metric in one["Metrics"])


def titled(listed: Sequence[Any]) -> dict[str, str]:
    """Columns or metrics: title -> what it stands for."""
    return {
        k: v for one in listed for k, v in (one if isinstance(one, dict) else {one: one}).items()
    }


def columns(table: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Title, data set and metric of each column; mAcc of things is none of ADE20K, say."""
    return [
        (title, dataset, metric)
        for title, dataset in titled(table["Columns"]).items()
        for metric in titled(table["Metrics"])
        if (dataset, metric) in known_pairs()
    ]


def cells(table: Mapping[str, Any]) -> Iterator[Cell]:
    """The cells of a table that something measures.

    Raises:
        ValueError: more than one number fits a cell.
    """
    for row in table["Rows"]:
        found = list(results(row, named(row.get("Models", row.get("Train", [])))))
        for title, dataset, metric in columns(table):
            fits = [
                (name, result["Metrics"][metric])
                for name, result in found
                if result["Dataset"] == dataset and metric in result["Metrics"]
            ]
            if len(fits) > 1:
                raise ValueError(f"{table['Name']}, row {row['Name']}, {dataset}: {fits}")
            test = row.get("Test", {}).get(title, {})
            if not test and (not fits or "Test" in row):
                continue
            yield Cell(
                table["Name"],
                row["Name"],
                title,
                dataset,
                metric,
                model=test.get("Model", fits[0][0] if fits else ""),
                options=(*row.get("Options", ()), *test.get("Options", ())),
                train=row.get("Train"),
                train_options=tuple(row.get("Train Options", ())),
                published=fits[0][1] if fits else None,
                entry=fits[0][0] if fits else "",
            )
