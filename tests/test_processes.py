"""A script in a forked process behaves as one that Python was started for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.processes import run_code, run_script

SCRIPT = """
import json, os, sys
facts = [sys.argv[1:], os.getcwd(), os.environ.get("COLOUR"), os.environ.get("HOME"), __name__]
print(json.dumps([*facts, sys.path[0], os.path.basename(__file__)]))
print("to the other", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


def test_a_script_sees_what_python_would_show_it(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {"COLOUR": "red", "PATH": os.environ["PATH"]}
    places = dict(cwd=tmp_path / "work", env=environment)
    forked = run_script(script, "3", "two words", **places)
    command = [sys.executable, str(script), "3", "two words"]
    started = subprocess.run(command, capture_output=True, text=True, check=False, **places)
    assert forked.returncode == started.returncode == 3
    assert forked.stdout == started.stdout and '"red", null' in forked.stdout
    assert forked.stderr == started.stderr == "to the other\n"


@pytest.mark.parametrize(
    ("code", "returncode", "message"),
    [
        ("pass", 0, ""),
        ("import sys; sys.exit('a sentence')", 1, "a sentence\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, ""),
    ],
)
def test_how_a_child_ends_is_told(code: str, returncode: int, message: str) -> None:
    done = run_code(code)
    assert done.returncode == returncode and done.stderr.endswith(message)
    assert ("Traceback" in done.stderr) == ("ZeroDivision" in message)


def test_a_child_imports_the_package_of_this_repository_itself() -> None:
    done = run_code(
        "import sys; assert not any(n.startswith(('mmclipdis', 'mmcv', 'mmdet', 'mmseg'))"
        " for n in sys.modules); import mmclipdis; print(mmclipdis.__file__)"
    )
    assert done.stdout == f"{ROOT}/mmclipdis/__init__.py\n", done.stderr


def test_children_draw_different_numbers_and_know_nothing_of_each_other() -> None:
    code = (
        "import random, numpy, sys; assert not hasattr(sys, 'mark'); sys.mark = 1\n"
        "print(random.random()); print(numpy.random.rand())"
    )
    numbers = [line for _ in range(2) for line in run_code(code).stdout.split()]
    assert len(set(numbers)) == 4


def test_a_child_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    code = f"""
import subprocess, time
subprocess.Popen(["sh", "-c", "while :; do touch {alive}; sleep 0.1; done"])
print("started", flush=True)
time.sleep(600)
"""
    with pytest.raises(subprocess.TimeoutExpired) as error:
        run_code(code, timeout=3)
    assert error.value.output == "started\n"
    alive.unlink()
    time.sleep(1)
    assert not alive.exists()
