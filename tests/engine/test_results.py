"""Measured tables: one layout, merged by name, each row with the command it came from."""

from __future__ import annotations

import json

import pytest

from mmclipdis.engine import results
from mmclipdis.engine.results import read_results, write_results


def row(name, **metrics):
    return {"name": name, "metrics": metrics}


def test_a_table_is_read_back_as_it_was_written(tmp_path):
    path = tmp_path / "new" / "table.json"
    rows = [row("a", mIoU=41.5, seconds={"mean": 9.0, "std": 0.5}), row("b", target="≥ 1.6")]
    write_results(path, rows, command="make demo", seeds=[0, 1])
    table = read_results(path)
    assert table["rows"] == rows
    assert (table["command"], table["seeds"]) == ("make demo", [0, 1])
    assert "torch" in table["machine"]
    assert table["commit"]
    assert [file.name for file in path.parent.iterdir()] == ["table.json"]


def test_merging_replaces_rows_in_place_and_keeps_where_the_others_came_from(tmp_path):
    path = tmp_path / "table.json"
    write_results(path, [row("a", x=1), row("b", x=2)], command="first", seeds=[0])
    write_results(path, [row("c", x=3), row("a", x=4)], command="second", seeds=[0], merge=True)
    table = read_results(path)
    assert [(r["name"], r["metrics"]["x"]) for r in table["rows"]] == [("a", 4), ("b", 2), ("c", 3)]
    assert table["command"] == "second"
    assert [r.get("command") for r in table["rows"]] == [None, "first", None]
    assert all("seeds" not in r for r in table["rows"])
    write_results(path, [row("c", x=5)], command="first", seeds=[0], merge=True)
    own = {r["name"]: r.get("command") for r in read_results(path)["rows"]}
    assert own == {"a": "second", "b": None, "c": None}


def test_without_merging_the_old_rows_are_gone(tmp_path):
    path = tmp_path / "table.json"
    write_results(path, [row("a", x=1)])
    write_results(path, [row("b", x=1)])
    assert [r["name"] for r in read_results(path)["rows"]] == ["b"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one row"),
        ([row("a")], "needs a name and metrics"),
        ([row("", x=1)], "needs a name and metrics"),
        ([row("a", x=1), row("a", x=2)], r"named twice: \['a'\]"),
        ([row("a", x=float("nan"))], "a: x: expected a finite number"),
        ([row("a", x=True)], "finite number"),
        ([row("a", x=None)], "finite number"),
        ([row("a", x={"mean": 1.0})], "a spread has the keys"),
    ],
)
def test_bad_rows_are_refused_and_leave_the_file_alone(tmp_path, rows, message):
    path = tmp_path / "table.json"
    write_results(path, [row("old", x=1)])
    before = path.read_text()
    with pytest.raises(ValueError, match=message):
        write_results(path, rows)
    assert path.read_text() == before


def test_files_of_another_layout_are_one_clear_error(tmp_path):
    path = tmp_path / "table.json"
    with pytest.raises(FileNotFoundError, match="run the command that measures"):
        read_results(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="is not json"):
        read_results(path)
    path.write_text(json.dumps({"rows": []}))
    with pytest.raises(ValueError, match="lacks"):
        read_results(path)


def test_the_command_is_relative_to_the_repository(monkeypatch):
    script = str(results.ROOT / "tools" / "demo.py")
    monkeypatch.setattr("sys.argv", [script, "--name", "two words"])
    assert results.command_line() == "python tools/demo.py --name 'two words'"


def test_code_outside_a_clone_has_an_unknown_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "ROOT", tmp_path)
    assert results.commit() == "unknown"
