"""Faults of configs and of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmclipdis.apis.run import test as run_test
from tests.faults.endings import ends_in
from tests.paths import ROOT


def test_there_is_no_such_config(capsys: pytest.CaptureFixture[str]) -> None:
    path = ROOT / "configs/shapes/clearklip.py"
    ends_in("clearklip.py' does not exist; did you mean .*clearclip.py", run_test, [path], capsys)


def test_the_checkpoint_does_not_exist(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = ROOT / "configs/shapes/catseg.py"
    ends_in("none.pth' does not exist", run_test, [config, tmp_path / "none.pth"], capsys)
