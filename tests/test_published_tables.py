"""Published tables: each cell is measured by something, and each published number is in a cell."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from mmclipdis.apis.reproduction import find_table
from tests.config_options import check_options
from tests.published_tables import Cell, cells, entries, named, tables, titled

TABLE = {
    "Name",
    "Aliases",
    "Paper",
    "Title",
    "Columns",
    "Metrics",
    "Average",
    "Gates",
    "Reasons",
    "Page",
    "Rows",
}
ROW = {"Name", "Models", "Variant", "Source", "Options", "Train", "Train Options", "Test"}
TEST = {"Model", "Options", "Checkpoint"}
MEASURED_HERE = ("camvid", "shapes")
#: Tasks that an analysis tool measures, not ``tools/test.py``.
BY_TOOLS = ("Class Similarity",)
NAMES = [table["Name"] for _, table in tables()]


@functools.cache
def all_cells() -> list[Cell]:
    return [cell for _, table in tables() for cell in cells(table)]


def test_tables_have_unique_names_of_their_folder() -> None:
    assert len(NAMES) == len(set(NAMES))
    assert all(table["Name"].startswith(f"{folder}/") for folder, table in tables())


@pytest.mark.parametrize("name", NAMES)
def test_a_table_has_known_words_and_cells_in_every_row_and_column(name: str) -> None:
    table = next(table for _, table in tables() if table["Name"] == name)
    assert set(table) <= TABLE and table["Paper"] and table["Title"]
    found = list(cells(table))
    names = [row["Name"] for row in table["Rows"]]
    assert len(names) == len(set(names)) and {cell.row for cell in found} == set(names)
    assert {cell.column for cell in found} == set(titled(table["Columns"]))
    assert {cell.metric for cell in found} == set(titled(table["Metrics"]))
    for row in table["Rows"]:
        assert set(row) <= ROW and {"Models", "Train", "Test"} & set(row), row["Name"]
        assert named(row.get("Models", row.get("Train", "*"))), row["Name"]
        assert set(row.get("Test", {})) <= set(titled(table["Columns"])), row["Name"]
        assert all(set(test) <= TEST for test in row.get("Test", {}).values()), row["Name"]
    for cell in found:
        assert {cell.model, cell.train or cell.model} <= set(entries()), cell
        assert (cell.train is not None) == needs_training(cell, table), cell


@pytest.mark.parametrize("name", NAMES)
def test_the_reader_finds_what_a_naive_one_finds(name: str) -> None:
    table = next(table for _, table in tables() if table["Name"] == name)
    naive: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells(table):
        naive.setdefault((cell.row, cell.column), []).append(cell)
    read = find_table(name)
    assert {(cell.row, cell.column) for cell in read.cells} == set(naive)
    for cell in read.cells:
        expected = naive[cell.row, cell.column]
        first = expected[0]
        assert (cell.model, cell.options) == (first.model, first.options)
        training = (first.train, first.train_options) if first.train else None
        assert (cell.training and (cell.training.model, cell.training.options)) == training
        numbers = {one.metric: one.published for one in expected if one.published is not None}
        assert cell.published == numbers
        assert all(cell.sources[metric] for metric in numbers)


def needs_training(cell: Cell, table: dict[str, Any]) -> bool:
    row = next(row for row in table["Rows"] if row["Name"] == cell.row)
    test = row.get("Test", {}).get(cell.column, {})
    return "Train" in row and (
        test.get("Checkpoint", False) or any("{checkpoint}" in one for one in cell.options)
    )


def test_every_published_number_of_a_metafile_is_in_a_cell() -> None:
    """By data set, metric and number: a training's entry and a test's may both have it."""
    reached = {
        (cell.entry.split("_")[0], cell.dataset, cell.metric, cell.published)
        for cell in all_cells()
    }
    missing = []
    for name, entry in entries().items():
        if entry["Config"].split("/")[1] in MEASURED_HERE:
            continue
        for result in entry.get("Results", ()):
            if result["Task"] in BY_TOOLS:
                continue
            for metric, value in result["Metrics"].items():
                key = (name.split("_")[0], result["Dataset"], metric, value)
                if key not in reached:
                    missing.append((name, result.get("Variant"), *key[1:]))
    assert missing == []


def options_of_cells() -> list[tuple[str, tuple[str, ...]]]:
    """Config and options; of a row's options on many data sets the first alone."""
    pairs: dict[tuple[str, str, tuple[str, ...]], str] = {}
    for cell in all_cells():
        pairs.setdefault((cell.table, cell.row, cell.options), entries()[cell.model]["Config"])
        if cell.train:
            config = entries()[cell.train]["Config"]
            pairs.setdefault((cell.table, cell.row, cell.train_options), config)
    return sorted({(path, key[2]) for key, path in pairs.items() if key[2]})


def test_options_of_cells_are_settings_that_their_config_has() -> None:
    """A setting that is not in the config is an argument of what it would be given to."""
    for path, options in options_of_cells():
        check_options(path, [one.replace("{checkpoint}", "x.pth") for one in options])
