"""tools/pretrain_shapes_clip.py: the results file of --evaluate, and errors in one line."""

from __future__ import annotations

import sys

import pytest

from mmclipdis.engine.results import read_results
from tests.paths import ROOT
from tests.processes import run_script
from tools.pretrain_shapes_clip import main

SCRIPT = ROOT / "tools" / "pretrain_shapes_clip.py"


def test_evaluate_writes_a_table_like_every_other(monkeypatch, tmp_path):
    out = tmp_path / "clip.json"
    arguments = ["--evaluate", "--count", "4", "--seeds", "3", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    main(arguments)
    table = read_results(out)
    assert table["command"] == f"python tools/pretrain_shapes_clip.py {' '.join(arguments)}"
    assert table["seeds"] == [3] and "cores" in table["machine"]
    (row,) = table["rows"]
    assert row["name"] == "shapes-tiny" and row["metrics"]["single_object_accuracy"] >= 75


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--evaluate", "--weights", "none.safetensors"], "'none.safetensors' is neither a file"),
        (["--batch", "5"], "batch (5) must be a multiple of processes (2)"),
    ],
)
def test_bad_requests_end_with_one_line(tmp_path, arguments, message):
    done = run_script(SCRIPT, *arguments, "--work-dir", str(tmp_path))
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
