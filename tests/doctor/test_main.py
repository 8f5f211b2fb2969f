"""The doctor speaks where mmclipdis cannot be imported, for people and for machines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmclipdis.commands.__main__ import command
from mmclipdis.compat.trouble import Trouble
from mmclipdis.doctor import __main__ as doctor
from mmclipdis.doctor.facts import collect
from tests.paths import ROOT

#: A Python without torch, mmengine and mmcv, whatever is installed.
WITHOUT = """
import sys
for name in ("torch", "torchvision", "mmengine", "mmcv", "numpy"):
    sys.modules[name] = None
"""
COMMAND = """
import sys
from mmclipdis_command import command
sys.exit(command())
"""


def test_the_module_speaks_where_the_package_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    run = [sys.executable, "-m", "mmclipdis.doctor", "--json"]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 1 and done.stderr == "", done.stderr
    found = json.loads(done.stdout)
    assert found["ok"] is False
    stops = [one["what"] for one in found["troubles"] if one["stops"]]
    assert {f"mmclipdis needs {name}, which is not installed" for name in ("torch", "mmcv")} <= {
        *stops
    }
    assert found["facts"]["System"]["Python"].startswith(f"{sys.version_info[0]}.")


def test_the_command_speaks_where_the_package_cannot_be_imported(tmp_path: Path) -> None:
    """The console script, as pip writes it: a file called mmclipdis."""
    script = tmp_path / "mmclipdis"
    script.write_text(WITHOUT + COMMAND)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = [sys.executable, str(script), "doctor"]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 1 and done.stderr == "", done.stderr
    assert "stops: mmclipdis needs torch, which is not installed; run: pip install" in done.stdout
    other = subprocess.run(
        [sys.executable, str(script), "tag", "a.png", "--words", "a, b"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert other.returncode == 2 and other.stdout == ""
    (line,) = other.stderr.splitlines()
    assert line.startswith("error: mmclipdis needs torch, which is not installed; run: pip install")


def test_setup_installs_the_command() -> None:
    assert '"mmclipdis = mmclipdis_command:command"' in (ROOT / "setup.py").read_text()


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Trouble]:
    """What the checks find; a test adds to it."""
    troubles: list[Trouble] = []
    monkeypatch.setattr(doctor, "find_troubles", lambda: troubles)
    return troubles


def test_the_report_has_all_sections(
    found: list[Trouble], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["doctor"]) == 0
    text = capsys.readouterr().out
    for title in ("System", "PyTorch", "Packages", "Ops", "Caches", "Weights", "Data"):
        assert re.search(rf"(?m)^{title}$", text), title
    assert "unknown" not in text and text.rstrip().endswith("No trouble found.")
    assert re.search(r"(?m)^  row: (upstream|fork)$", text)
    assert re.search(r"(?m)^  stand-ins: .*\bnms\b.*\broi_align_forward\b", text) or (
        "compiled, all of them" in text
    )
    assert "shapes-tiny" in text and "built for this torch" in text


def test_a_warning_is_told_and_only_what_stops_fails(
    found: list[Trouble], capsys: pytest.CaptureFixture[str]
) -> None:
    found.append(Trouble("two of them", "keep one"))
    assert doctor.main([]) == 0
    assert "  warning: two of them; keep one.\n" in capsys.readouterr().out
    found.append(Trouble("nothing there", "install it", stops=True))
    assert doctor.main(["--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["troubles"] == [
        {"what": "two of them", "remedy": "keep one", "stops": False},
        {"what": "nothing there", "remedy": "install it", "stops": True},
    ]


def test_weights_and_data_sets_at_hand_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "mine.safetensors").write_bytes(bytes(3_000_000))
    (tmp_path / "data" / "coco").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    facts = collect()
    assert facts["Weights"]["in checkpoints/"] == "mine.safetensors (3 MB)"
    assert facts["Data"]["data sets"].startswith("data/coco/ (")
