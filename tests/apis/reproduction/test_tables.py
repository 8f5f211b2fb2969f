"""Tables name what the metafiles have, cells with number and source; a mistake is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mmclipdis.apis.reproduction import published
from mmclipdis.apis.reproduction.cells import Table
from mmclipdis.apis.reproduction.tables import find_table, read_tables, tables

TABLE: dict[str, Any] = {
    "Name": "toy/one",
    "Paper": "A paper",
    "Title": "A title",
    "Columns": ["Here", {"There": "Far away"}],
    "Metrics": ["mIoU", {"AP50 novel": "bbox_mAP_50"}],
    "Rows": [{"Name": "a row", "Models": "toy_*"}],
}


def result(
    dataset: str, value: float, source: str | None = "A paper", **more: Any
) -> dict[str, Any]:
    return {"Dataset": dataset, "Metrics": {"mIoU": value}, "Source": source, **more}


@pytest.fixture(autouse=True)
def toy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries in place of the metafiles, for all tests but those of our own tables."""
    if "own" in request.node.name:
        return
    entries = {
        "toy_here": [result("Here", 1.5), result("Here", 9.0, Variant="an option")],
        "toy_there": [result("Far away", 2.5), result("Far away", 3.5, "Another paper")],
        "toy_unsourced": [result("Nowhere", 1.0, None)],
    }
    known = {name: ("toy.yml", {"Name": name, "Results": r}) for name, r in entries.items()}
    monkeypatch.setattr(published, "_entries", lambda: known)


def read(tmp_path: Path, row: dict[str, Any] | None = None, **changes: Any) -> Table:
    path = tmp_path / f"tables{len(list(tmp_path.iterdir()))}.yml"
    rows = {"Rows": [{"Name": "a row", **row}]} if row is not None else {}
    path.write_text(yaml.safe_dump({"Tables": [{**TABLE, **rows, **changes}]}))
    (table,) = read_tables(path)
    return table


def test_a_cell_is_the_entry_that_has_the_number(tmp_path: Path) -> None:
    table = read(tmp_path, {"Models": "toy_*", "Source": "A paper"})
    here, there = table.cells
    assert (here.model, here.published, here.sources) == (
        "toy_here", {"mIoU": 1.5}, {"mIoU": "A paper"}
    )  # fmt: skip
    assert (there.column, there.model, there.published) == ("There", "toy_there", {"mIoU": 2.5})
    assert table.gates == {"mIoU": 0.3, "AP50 novel": 0.5}
    assert table.metrics["AP50 novel"] == "bbox_mAP_50"


def test_a_variant_and_a_source_choose_among_the_results(tmp_path: Path) -> None:
    (cell,) = read(tmp_path, {"Models": "toy_*", "Variant": "an option", "Options": ["a=1"]}).cells
    assert cell.published == {"mIoU": 9.0} and cell.options == ("a=1",)
    (cell,) = read(tmp_path, {"Models": ["toy_there"], "Source": "Another"}).cells
    assert cell.published == {"mIoU": 3.5}


def test_what_is_trained_is_tested_by_another_entry_or_by_itself(tmp_path: Path) -> None:
    own, other = {"Train": "toy_here"}, {"Model": "toy_there", "Options": ["x={checkpoint}"]}
    (cell,) = read(tmp_path, own).cells
    assert cell.training is not None and cell.training.model == "toy_here" and cell.checkpoint
    (cell,) = read(tmp_path, {**own, "Test": {"Here": other}}).cells
    assert (cell.model, cell.checkpoint, cell.published["mIoU"]) == ("toy_there", False, 1.5)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"Models": "toy_her"}, "no metafile has an entry 'toy_her'; did you mean toy_here"),
        ({"Models": "toy_*"}, "Far away has 2 results, toy_there .A paper. and toy_there"),
        ({"Models": "toy_here", "Variant": "other"}, "none of 1 entries has a result of Here, Far"),
        ({}, "names no Models"),
        ({"Model": "toy_here"}, "unknown key 'Model'; known are Models, Name"),
        ({"Models": "toy_here", "Test": {"Elsewhere": {}}}, "Test names 'Elsewhere'"),
        ({"Models": "toy_here", "Test": {"There": {}}}, "nothing is published"),
        ({"Models": "toy_here", "Options": ["x={checkpoint}"]}, "nothing is trained: give Train"),
        ({"Train": "toy_here", "Test": {"Here": {"Model": "toy_there"}}}, "is not used: give Test"),
    ],
)
def test_a_mistake_in_a_row_is_one_line(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path, row)
    assert "\n" not in str(error.value)


def test_a_number_without_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"toy.yml: toy_unsourced: the result of Nowhere has no So"
    ):
        read(tmp_path, {"Models": "toy_unsourced"}, Columns=["Nowhere"])


def test_mistakes_of_a_table_are_one_line(tmp_path: Path) -> None:
    row = {"Models": "toy_here"}
    with pytest.raises(ValueError, match="unknown key 'Column'"):
        read(tmp_path, row, Column=["Here"])
    with pytest.raises(ValueError, match="Gates names 'mAP'"):
        read(tmp_path, row, Gates={"mAP": 1.0})
    with pytest.raises(ValueError, match="two rows are called 'a row'"):
        read(tmp_path, Rows=[{"Name": "a row", **row}, {"Name": "a row", **row}])
    with pytest.raises(ValueError, match="none of 1 entries has a result of Here, Far away"):
        read(tmp_path, row, Metrics=["mAP"])
    path = tmp_path / "broken.yml"
    path.write_text("Tables: [")
    with pytest.raises(ValueError, match="is no YAML"):
        read_tables(path)


def test_an_unknown_table_of_our_own_is_answered_with_near_names() -> None:
    with pytest.raises(ValueError, match="no table 'clearclip/tabel2'; did you mean clearclip/t"):
        find_table("clearclip/tabel2")
    with pytest.raises(ValueError, match="--list names all"):
        find_table("qqqq")


def test_an_alias_stands_for_a_table_of_our_own() -> None:
    assert find_table("clearclip/table2").name == "clearclip/without-background"


def test_our_own_tables_can_be_read_and_every_number_has_a_source() -> None:
    assert {table.name for table in tables()} >= {"clearclip/ablation", "declip/table6"}
    for table in tables():
        assert table.name.startswith(f"{Path(table.file).parent.name}/")
        assert table.cells and all(table.gates.values()), table.name
        for cell in table.cells:
            assert cell.sources.keys() == cell.published.keys(), cell.name
            assert all(cell.sources.values()), cell.name
