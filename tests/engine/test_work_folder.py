"""One training a work folder; a killed one is no obstacle and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmclipdis.engine.work_folder import LOCK, lock_work_folder
from mmclipdis.utils.whole_files import remove_leftovers, whole_file
from tests.paths import ROOT
from tests.ranks import run_ranks

HOLD = """
import sys
sys.path.insert(0, {root!r})
from mmclipdis.engine.work_folder import lock_work_folder
from mmclipdis.utils.whole_files import whole_file
lock = lock_work_folder({folder!r})
with whole_file({folder!r} + "/iter_7.pth") as file:
    file.write(b"half of it")
    file.flush()
    print("holds", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that trains in ``tmp_path`` and is about to write a checkpoint."""
    code = HOLD.format(root=str(ROOT), folder=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=-1, stdout=-1, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "holds\n"
        yield process
        process.kill()


def refused(rank: int, folder: Path) -> str:
    with pytest.raises(ValueError, match="in use") as error:
        lock_work_folder(folder)
    return str(error.value)


def test_the_second_run_is_told_and_a_killed_one_is_no_obstacle(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    with pytest.raises(ValueError, match=rf"in use: process {other.pid} on .*--work-dir"):
        lock_work_folder(tmp_path)
    messages = run_ranks(refused, 2, tmp_path)
    assert messages[0] == messages[1] and str(other.pid) in messages[0]
    left = list(tmp_path.glob(".iter_7.pth.*.tmp"))
    assert len(left) == 1 and remove_leftovers(tmp_path) == []  # it is being written
    other.send_signal(signal.SIGKILL)
    other.wait()
    lock = lock_work_folder(tmp_path)
    assert lock is not None and str(os.getpid()) in (tmp_path / LOCK).read_text()
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_a_process_may_train_twice_in_a_folder(tmp_path: Path) -> None:
    first = lock_work_folder(tmp_path)
    assert lock_work_folder(tmp_path) is first


def test_other_hidden_files_are_left_alone(tmp_path: Path) -> None:
    for name in (".a.tmp", "a.0123456789abcdef0123456789abcdef.tmp", ".x.pth.123.tmp"):
        (tmp_path / name).touch()
    with whole_file(tmp_path / "new") as file:
        file.write(b"x")
        assert remove_leftovers(tmp_path) == []
    assert remove_leftovers(tmp_path) == [] and len(list(tmp_path.iterdir())) == 4
    assert remove_leftovers(tmp_path / "none") == []


def test_a_file_in_the_way_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(NotADirectoryError, match="a file stands where a folder is needed.*runs'"):
        lock_work_folder(tmp_path / "runs" / "mine")
