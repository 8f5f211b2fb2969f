"""``configs/METHOD/tables.yml``: which cells a published table has, and how each is measured again.

A file is a list ``Tables``. A table has::

    Name: clearclip/table2        # METHOD/WORD, what `mmclipdis reproduce` takes
    Paper: ClearCLIP (ECCV 2024)
    Title: Segmentation without a background class
    Columns: [ADE20K, {VOC20: "PASCAL VOC 2012, 20 classes"}]
    Metrics: [mIoU, {AP50 novel: AP50_novel}]
    Rows: [...]

A column is a ``Dataset`` of the metafiles' results, with a short title if it needs one; a metric is
a key of their ``Metrics``, with the name that ``tools/test.py`` gives it where that is another
(``_`` for a blank, and what stands before a ``/``, make no difference). ``Aliases``,
``Average``, ``Gates``, ``Reasons`` and ``Page`` may follow: see ``cells.py``. A row has::

    Name: ClearCLIP, ViT-B/16
    Models: clearclip_vitb16_*    # entries of the metafiles: a pattern, or a list of names
    Variant: residual kept        # which of their results: that of an option, say; none: the plain
    Source: "ClearCLIP paper"     # which of their results; none: whatever the source
    Options: [key=value]          # for --cfg-options of every test of the row
    Train: declip_table8_last3    # an entry that is trained first; Models is this one, then, unless
    Train Options: [key=value]    #   it says otherwise
    Test:                         # column -> the entry that measures it, where it is another one
      ADE20K: {Model: declip_vitb16_ade20k, Options: ["a.b={checkpoint}"]}
      VOC20: {Model: catseg_vitb16_pas20, Checkpoint: true}

``{checkpoint}`` is the file of the training, and ``Checkpoint: true`` gives it to ``tools/test.py``
as its second word. Published numbers stand in the metafiles alone; a cell without one is empty,
unless nothing of its row is published: a row may then have ``Test`` alone, and is measured.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mmclipdis.apis.reproduction.cells import Cell, Row, Table, Training
from mmclipdis.apis.reproduction.published import Published, result_of, select
from mmclipdis.apis.zoo.sources import LOADER
from mmclipdis.utils.places import ROOT

#: Largest difference that counts as the same, in points, by the beginning of a metric's name.
GATES = {"mIoU": 0.3, "mAcc": 0.3, "AP": 0.5, "mAP": 0.5, "box AP": 0.5, "mask AP": 0.5}
#: Of metrics that the table above does not know.
OTHER_GATE = 0.5
TABLE_KEYS = {
    *("Name", "Paper", "Title", "Columns", "Metrics", "Rows"),
    *("Aliases", "Average", "Gates", "Reasons", "Page"),
}
ROW_KEYS = {"Name", "Models", "Variant", "Source", "Options", "Train", "Train Options", "Test"}
TEST_KEYS = {"Model", "Options", "Checkpoint"}


def tables() -> tuple[Table, ...]:
    """All tables of all files.

    Raises:
        ValueError: naming the file and the table in which something is wrong.
    """
    found = tuple(table for file in _files() for table in read_tables(file))
    names = [name for table in found for name in (table.name, *table.aliases)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two tables are called {twice[0]}; give one of them another Name")
    return found


def find_table(name: str) -> Table:
    """The table of a name.

    Raises:
        ValueError: there is none, with names that look like it; or its file is wrong.
    """
    known = {
        called: (table["Name"], file)
        for file in _files()
        for table in _contents(file)
        for called in (table["Name"], *table.get("Aliases", ()))
    }
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        near = near or [one for one in known if name.strip("/") in one.split("/")][:5]
        hint = f"did you mean {' or '.join(near)}" if near else "--list names all"
        raise ValueError(f"there is no table {name!r}; {hint}")
    title, file = known[name]
    return next(table for table in read_tables(file) if table.name == title)


@functools.cache
def _files() -> tuple[Path, ...]:
    return tuple(sorted((ROOT / "configs").glob("*/tables.yml")))


@functools.cache
def read_tables(file: Path) -> tuple[Table, ...]:
    """The tables of a file.

    Raises:
        ValueError: it is no YAML, a key is unknown or missing, or a row names what is not in the
            metafiles.
    """
    return tuple(_table(data, file) for data in _contents(file))


@functools.cache
def _contents(file: Path) -> tuple[dict[str, Any], ...]:
    try:
        data = yaml.load(file.read_text("utf-8"), Loader=LOADER)
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no YAML: {' '.join(str(error).split())}") from error
    listed = data.get("Tables") if isinstance(data, dict) else None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise ValueError(f"{file} has no list 'Tables' of tables")
    for one in listed:
        _check_keys(one, TABLE_KEYS, {"Name", "Paper", "Title", "Columns", "Metrics", "Rows"}, file)
    return tuple(listed)


def _table(data: Mapping[str, Any], file: Path) -> Table:
    name = data["Name"]
    where = f"{file}: {name}"
    columns, metrics = _titled(data["Columns"], where), _titled(data["Metrics"], where)
    gates = {metric: _gate(metric) for metric in metrics}
    given = data.get("Gates", {})
    if unknown := sorted(given.keys() - gates.keys()):
        raise ValueError(f"{where}: Gates names {unknown[0]!r}, which is none of {list(metrics)}")
    table = Table(
        name,
        data["Paper"],
        data["Title"],
        columns,
        metrics,
        tuple(_row(row, name, columns, metrics, where) for row in data["Rows"]),
        bool(data.get("Average", False)),
        {**gates, **given},
        tuple(data.get("Reasons", ())),
        data.get("Page", ""),
        str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else str(file),
        tuple(data.get("Aliases", ())),
    )
    names = [row.name for row in table.rows]
    if twice := sorted({one for one in names if names.count(one) > 1}):
        raise ValueError(f"{where}: two rows are called {twice[0]!r}; give one another Name")
    return table


def _row(
    data: Mapping[str, Any],
    table: str,
    columns: Mapping[str, str],
    metrics: Mapping[str, str],
    where: str,
) -> Row:
    _check_keys(data, ROW_KEYS, {"Name"}, where)
    where = f"{where}: row {data['Name']!r}"
    if not {"Models", "Train", "Test"} & data.keys():
        raise ValueError(f"{where} names no Models; give a pattern or a list of entries")
    models = select(data.get("Models", data.get("Train", [])), where)
    training = None
    if "Train" in data:
        (trained,) = select([data["Train"]], where)
        training = Training(trained, tuple(data.get("Train Options", ())))
    tests = data.get("Test", {})
    if unknown := sorted(tests.keys() - columns.keys()):
        raise ValueError(f"{where}: Test names {unknown[0]!r}, which is none of {list(columns)}")
    cells = {}
    for column, dataset in columns.items():
        found = result_of(models, dataset, metrics, data.get("Variant"), data.get("Source"), where)
        if found is not None:
            cells[column] = _cell(data, table, column, found, training, where)
    if not cells:  # of figures without numbers
        cells = {
            column: _cell(data, table, column, Published(how["Model"], {}, {}), training, where)
            for column, how in tests.items()
            if "Model" in how
        }
    if not cells:
        raise ValueError(
            f"{where}: none of {len(models)} entries has a result of {', '.join(columns.values())} "
            f"with {' or '.join(metrics)}; see their Results in the metafile"
        )
    if empty := sorted(tests.keys() - cells.keys()):
        raise ValueError(f"{where}: Test measures {empty[0]!r}, for which nothing is published")
    return Row(data["Name"], cells)


def _cell(
    data: Mapping[str, Any],
    table: str,
    column: str,
    found: Published,
    training: Training | None,
    where: str,
) -> Cell:
    how = data.get("Test", {}).get(column, {})
    _check_keys(how, TEST_KEYS, set(), f"{where}: Test: {column}")
    (model,) = select([how.get("Model", found.model)], where)
    options = (*data.get("Options", ()), *how.get("Options", ()))
    # an entry that is trained is tested with what came out
    checkpoint = bool(how.get("Checkpoint", training is not None and model == training.model))
    used = checkpoint or any("{checkpoint}" in option for option in options)
    if used != (training is not None):
        what = "nothing is trained: give Train" if used else "its checkpoint is not used: give Test"
        raise ValueError(f"{where}: {column}: {what}")
    return Cell(
        table,
        data["Name"],
        column,
        model,
        found.metrics,
        found.sources,
        options,
        checkpoint,
        training,
    )


def _gate(metric: str) -> float:
    return next((gate for name, gate in GATES.items() if metric.startswith(name)), OTHER_GATE)


def _titled(listed: Sequence[Any], where: str) -> dict[str, str]:
    """Columns or metrics: a title for each, its own name where none is given."""
    return dict(_pairs(listed, where))


def _pairs(listed: Sequence[Any], where: str) -> Iterator[tuple[str, str]]:
    for one in listed:
        if isinstance(one, str):
            yield one, one
        elif isinstance(one, dict) and len(one) == 1:
            yield from ((str(title), str(name)) for title, name in one.items())
        else:
            raise ValueError(f"{where}: a column or metric is NAME or {{TITLE: NAME}}, got {one!r}")


def _check_keys(data: Mapping[str, Any], known: set[str], needed: set[str], where: object) -> None:
    if unknown := sorted(data.keys() - known):
        raise ValueError(
            f"{where}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}"
        )
    if missing := sorted(needed - data.keys()):
        raise ValueError(f"{where}: {data.get('Name', 'a table')} has no {missing[0]}")
