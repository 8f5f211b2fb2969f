"""Many tasks by several processes: in order, as they come, and no file cut off when one fails."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from mmclipdis.models.text_encoder import OpenCLIPTextEncoder, build_vocabulary
from mmclipdis.utils import processes
from mmclipdis.utils.processes import each
from mmclipdis.utils.whole_files import whole_file


def fail_or_write(target: Path) -> None:
    """Fail once another process is in the middle of a file, or be that process."""
    if target.name == "fails":
        deadline = time.monotonic() + 10
        while not list(target.parent.glob(".written.*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        raise ValueError("broken")
    if not target.exists():
        with whole_file(target) as file:
            file.write(b"wh")
            time.sleep(0.2)
            file.write(b"ole")


def test_a_failure_leaves_whole_files_of_other_processes(tmp_path: Path) -> None:
    tasks = [tmp_path / "fails"] + [tmp_path / "written"] * 31  # 16 go to a process at a time
    with pytest.raises(ValueError, match="broken"):
        list(each(fail_or_write, tasks, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["written"]
    assert (tmp_path / "written").read_bytes() == b"whole"


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_reported() -> None:
    with pytest.raises(OSError, match="one of the processes was killed"):
        list(each(die, [0], 2))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_come_in_order(workers: int) -> None:
    assert list(each(abs, list(range(-40, 0)), workers)) == list(range(40, 0, -1))
    assert list(each(abs, range(0), workers)) == []


def touch(path: Path) -> None:
    time.sleep(0.005)
    path.touch()


def begun_is_done(folder: Path) -> bool:
    """Whether some tasks were never begun, and all tasks of those processes that had begun done."""
    count = len(list(folder.iterdir()))
    return 0 < count <= 128 and count % 16 == 0


def test_who_stops_asking_stops_the_processes(tmp_path: Path) -> None:
    results = each(touch, [tmp_path / str(number) for number in range(256)], 2)
    assert next(results) is None
    results.close()
    assert begun_is_done(tmp_path)


def test_an_interruption_starts_nothing_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(results: Iterable[Any], **_: Any) -> Iterator[Any]:
        for result in results:
            yield result
            raise KeyboardInterrupt

    monkeypatch.setattr(processes, "tqdm", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(each(touch, [tmp_path / str(number) for number in range(256)], 2))
    assert begun_is_done(tmp_path)


def threads(_: int) -> int:
    return cv2.getNumThreads()


def test_each_process_has_one_thread_of_opencv_and_this_one_keeps_its_own() -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        assert list(each(threads, range(20), 2)) == [1] * 20
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


AFTER_THREADS = """
import importlib.util
import sys

import cv2
import numpy as np

cv2.setNumThreads(4)
cv2.resize(np.zeros((3000, 3000, 3), np.uint8), (1500, 1500))  # now they run
spec = importlib.util.spec_from_file_location("processes", sys.argv[1])
processes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(processes)
print(list(processes.each(abs, [-1, -2], 2)))
"""


def test_a_fork_does_not_wait_for_threads_of_opencv_that_it_has_not() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", AFTER_THREADS, processes.__file__],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.communicate(timeout=60)[0] == "[1, 2]\n"
    finally:
        with contextlib.suppress(ProcessLookupError):  # it and what it started
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("spawn", [False, True])
def test_a_spawned_process_is_no_fork_of_this_one(spawn: bool) -> None:
    logging.addLevelName(77, "known here alone")  # a copy of this process would know it, too
    found = set(each(logging.getLevelName, [77] * 3, 2, spawn=spawn))
    if spawn:
        assert found == {"Level 77"}
    else:  # Python 3.14 forks from a fresh process
        assert found <= {"Level 77", "known here alone"}


@pytest.mark.slow
def test_spawned_processes_work_beside_threads(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # bars are for terminals
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert list(each(abs, [-1, -2], 2, spawn=True, unit="map", title="draw")) == [1, 2]
    finally:
        stop.set()
        thread.join()
    shown = capsys.readouterr().err
    assert "draw" in shown and "2/2" in shown and "map" in shown


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_for_terminals_only(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(each(abs, [-1, 2], 1, title="sizes")) == [1, 2]
    names = build_vocabulary(["cat", "dog"], "single")
    assert names is not None
    OpenCLIPTextEncoder("shapes-tiny", cache_dir=False).embed(names)
    assert ("sizes" in stream.getvalue()) == terminal
    assert ("text embeddings" in stream.getvalue()) == terminal
