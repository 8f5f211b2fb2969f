"""tools/pretrain_shapes_vfm.py: a short training, the results of --evaluate, one-line errors."""

from __future__ import annotations

import sys

import pytest
import torch

from mmclipdis.engine.results import read_results
from mmclipdis.shapes.vfm import load_vfm
from tests.paths import ROOT
from tests.processes import run_script
from tools import pretrain_shapes_vfm as tool

SCRIPT = ROOT / "tools" / "pretrain_shapes_vfm.py"
SHORT = ["--pictures", "4", "--steps", "2", "--batch", "2", "--side", "32", "--keys", "8"]


def test_a_short_training_exports_what_it_made(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tool, "CHECK_SCENES", 2)
    weights = tmp_path / "vfm.safetensors"
    tool.main(["--work-dir", str(tmp_path / "work"), "--weights", str(weights), *SHORT])
    trained = torch.load(tmp_path / "work" / "last.pt")
    assert trained["step"] == 2
    for name, value in load_vfm(weights).state_dict().items():
        assert torch.equal(value, trained["model"][name].half().float()), name
    assert "auc_things" in capsys.readouterr().out


def test_evaluate_writes_a_table_like_every_other(monkeypatch, tmp_path):
    out = tmp_path / "vfm.json"
    arguments = ["--evaluate", "--count", "3", "--seeds", "4", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    tool.main(arguments)
    table = read_results(out)
    assert table["command"] == f"python tools/pretrain_shapes_vfm.py {' '.join(arguments)}"
    assert table["seeds"] == [4]
    rows = {row["name"]: row["metrics"] for row in table["rows"]}
    assert {"mean colour", "random ViT", "CLIP q", "CLIP k", "shapes-vfm"} <= set(rows)
    best = max(rows, key=lambda name: rows[name]["auc_things"])
    assert best == "shapes-vfm" and rows[best]["auc"] >= 95


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--evaluate", "--weights", "none.safetensors"], "no weights at none.safetensors"),
        (["--side", "50"], "side (50) must be a multiple of the patch, 8 px"),
    ],
)
def test_bad_requests_end_with_one_line(tmp_path, arguments, message):
    done = run_script(SCRIPT, *arguments, "--work-dir", str(tmp_path))
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
