"""tools/shapes_training_free.py: its table, its sheet of pictures, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tools.shapes_training_free as training_free
from mmclipdis.apis import experiments
from mmclipdis.engine.results import read_results
from mmclipdis.shapes.coco import Settings, write_dataset

MEASURED = {*training_free.METRICS, "seconds", "peak_mb"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_dataset(folder, Settings(train=1, val=1))
    return folder


@pytest.fixture
def sheets(monkeypatch, tmp_path):
    """Small settings, results in ``tmp_path``; returns what stood above the columns of sheets."""
    draw, titles = training_free.draw_sheet, []

    def drawn(rows, names, *more):
        titles.append(names)
        draw(rows, names, *more)

    monkeypatch.setattr(training_free, "draw_sheet", drawn)
    monkeypatch.setattr(experiments, "command", lambda *_: None)  # the data is there
    monkeypatch.setattr(training_free, "TIMED", 1)
    monkeypatch.setattr(training_free, "OUT", tmp_path / "results.json")
    monkeypatch.setattr(training_free, "SHEET", tmp_path / "sheet.jpg")
    return titles


def run(tmp_path, data, *more):
    training_free.main(["--data", str(data), "--work-dir", str(tmp_path / "work"), *more])


@pytest.mark.slow
def test_one_row_is_measured_and_drawn_and_nothing_is_written(sheets, tmp_path, data, capsys):
    run(tmp_path, data, "--rows", "plain affinity")
    printed = capsys.readouterr().out
    table = json.loads(printed[printed.index("{\n") : printed.index("pictures:")])
    assert list(table) == ["plain affinity"] and set(table["plain affinity"]) == MEASURED
    assert table["plain affinity"]["mIoU"] > 10 and table["plain affinity"]["peak_mb"] > 1
    assert sheets == [["image", "ground truth", "plain affinity"]]
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
    assert (tmp_path / "work" / "sheet.png").is_file()


def test_all_rows_are_written(sheets, tmp_path, data, monkeypatch):
    rows = {"CLIP": "clip", "NACLIP + PAMR": "naclip_pamr"}
    monkeypatch.setattr(training_free, "ROWS", rows)
    monkeypatch.setattr(training_free, "SHOWN", ("NACLIP + PAMR",))
    monkeypatch.setattr(
        experiments, "test", lambda _: dict.fromkeys((*training_free.METRICS, "aAcc"), 50.0)
    )
    # what the row above has shown, and what takes the time
    monkeypatch.setattr(training_free, "costs", lambda *_: {"seconds": 0.1, "peak_mb": 10.0})
    for config in rows.values():
        (tmp_path / "work" / config).mkdir(parents=True)
    run(tmp_path, data, "--write")
    written = {r["name"]: r["metrics"] for r in read_results(tmp_path / "results.json")["rows"]}
    assert list(written) == list(rows) and all(set(found) == MEASURED for found in written.values())
    assert sheets == [["image", "ground truth", "NACLIP + PAMR"]]
    assert (tmp_path / "sheet.jpg").is_file()


def test_some_rows_do_not_take_the_place_of_the_table(sheets, tmp_path, data, capsys):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, data, "--rows", "CLIP", "--write")
    assert stop.value.code == 2 and not list(tmp_path.iterdir())
    assert "--write writes the whole table: leave out --rows" in capsys.readouterr().err


def test_every_row_has_a_config_and_is_in_the_results():
    assert all(
        Path(experiments.config_file(name)).is_file() for name in training_free.ROWS.values()
    )
    assert set(training_free.SHOWN) < set(training_free.ROWS)
    written = [row["name"] for row in read_results(training_free.OUT)["rows"]]
    assert written == list(training_free.ROWS)
