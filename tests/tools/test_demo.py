"""tools/demo.py with its steps replaced: what it asks of them, and what it records."""

from __future__ import annotations

import runpy
import sys

import pytest

import tools.demo as demo
from mmclipdis.engine.results import read_results
from mmclipdis.shapes.coco import Settings
from tests.paths import ROOT

METRICS = dict.fromkeys(demo.METRICS, 12.25)


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """Replaces every step that takes time; returns the tools that were called."""
    called = []
    monkeypatch.setattr(demo, "tool", lambda script, *options: called.append((script, *options)))
    for step in ("evaluate", "train_and_evaluate"):
        monkeypatch.setattr(demo, step, lambda *_: {**METRICS, "seconds": 3.04999})
    monkeypatch.setattr(demo, "picture_sheet", lambda *_: "sheet.png")
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    monkeypatch.setattr(demo, "RESULTS", tmp_path / "results")
    return called


def test_the_converter_draws_by_default_what_the_demo_asks_for(commands, monkeypatch, tmp_path):
    demo.main([])
    ((script, _, *options),) = commands
    drawn = []
    monkeypatch.setattr(
        "mmclipdis.shapes.coco.write_dataset", lambda out, settings, **_: drawn.append(settings)
    )
    for flags in ([], options):
        monkeypatch.setattr(sys, "argv", [script, str(tmp_path), *map(str, flags)])
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert drawn == [Settings(), Settings()]


def test_the_results_tell_the_command_that_was_typed(commands, monkeypatch, tmp_path):
    arguments = ["--train", "60", "--seed", "5", "--write"]
    monkeypatch.setattr(sys, "argv", [demo.__file__, *arguments])
    demo.main(arguments)
    results = read_results(tmp_path / "results" / "shapes_segmentation.json")
    assert results["command"] == "python tools/demo.py --train 60 --seed 5 --write"
    assert results["seeds"] == [5]
    assert [row["metrics"]["seconds"] for row in results["rows"]] == [3.0] * 5
    assert results["rows"][0]["metrics"]["mIoU"] == 12.25


def test_a_tool_shows_only_the_lines_asked_for_and_stops_the_demo_when_it_fails(
    monkeypatch, tmp_path, capfd
):
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    (tmp_path / "talk.py").write_text(
        "import sys, warnings\n"
        "warnings.warn('noise')\n"
        "print('10:00 - config\\n10:01 - Iter(train) [50/250]  loss: 0.5')\n"
        "sys.exit('error: ' + sys.argv[1])\n"
    )
    with pytest.raises(SystemExit) as stop:
        demo.tool("talk.py", tmp_path / "configs/one.py", only="Iter(train)")
    assert stop.value.code == 1
    out, err = capfd.readouterr()
    assert out == "$ python talk.py configs/one.py\n   Iter(train) [50/250]  loss: 0.5\n"
    assert err == f"error: {tmp_path}/configs/one.py\n"
