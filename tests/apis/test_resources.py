"""What the machine lacks is one line with the remedy; a closed pipe is none at all."""

from __future__ import annotations

import errno
import logging
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmclipdis.apis import cli
from mmclipdis.apis.resources import CLOSED_PIPE, raising_loggers
from tests.paths import ROOT
from tests.processes import run_code

FULL = OSError(errno.ENOSPC, "No space left on device", "/d/iter_4.pth")
CPU = (
    "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried "
    "to allocate 400000000000 bytes. Error code 12"
)
GPU = "CUDA out of memory. Tried to allocate 3.12 GiB. GPU 0 has a total capacity of 23.6 GiB"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FULL, "no space is left on the disk while writing '/d/iter_4.pth' .*--work-dir"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "no space is left on the disk .*quota"),
        (RuntimeError(CPU), r"of the machine \(asked for 400000000000 bytes\)"),
        (torch.cuda.OutOfMemoryError(GPU), r"GPU \(asked for 3.12 GiB\).*class_chunk.*--amp"),
        (MemoryError(), "out of memory of the machine; lower batch_size"),
        (cv2.error("OpenCV: (-4:Insufficient memory) Failed to allocate 9 bytes"), "the machine"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "want of memory"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is "
                         "possible that dataloader's workers are out of shared memory."),
            "ran out of shared memory .*--shm-size",
        ),
        (ModuleNotFoundError("No module named 'lvis'", name="lvis.eval"), "run: pip install lvis"),
        (ModuleNotFoundError("No module named 'cv2'", name="cv2"), "opencv-python-headless"),
    ],
)  # fmt: skip
def test_a_lack_is_one_line_with_its_remedy(error: Exception, line: str) -> None:
    import re

    for wrapped in (error, _raised_from(error), _while_handling(error)):
        message = cli.user_message(wrapped)
        assert message is not None and re.search(line, message) and "\n" not in message, message


def _raised_from(error: Exception) -> Exception:
    outer = RuntimeError("outer")
    outer.__cause__ = error
    return outer


def _while_handling(error: Exception) -> Exception:
    outer = RuntimeError("outer")
    outer.__context__ = error
    return outer


def test_real_want_of_memory_is_recognised() -> None:
    for allocate in (lambda: torch.empty(10**15), lambda: np.empty(10**15)):
        with pytest.raises((RuntimeError, MemoryError)) as error:
            allocate()
        assert "out of memory of the machine (asked for" in str(cli.user_message(error.value))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape mismatch"),
        ModuleNotFoundError("No module named 'mmclipdis.x'", name="mmclipdis.x"),
        FileExistsError(errno.EEXIST, "File exists", str(ROOT)),
        OSError(errno.EIO, "Input/output error"),
    ],
)
def test_other_errors_keep_their_traceback_or_their_own_words(error: Exception) -> None:
    message = cli.user_message(error)
    assert message is None or message == str(error)


def test_our_own_words_come_before_those_of_what_was_handled() -> None:
    from mmclipdis.compat.optional import absent

    try:
        try:
            raise ModuleNotFoundError("No module named 'mmdet'", name="mmdet")
        except ImportError:
            absent("mmclipdis.models", ("FViT",))("FViT")
    except Exception as error:
        message = cli.user_message(error)
    assert message is not None and "pip install mmdet" not in message


def test_a_file_where_the_work_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    for folder in (tmp_path / "runs", tmp_path / "runs" / "a" / "b"):
        with pytest.raises((FileExistsError, NotADirectoryError)) as error:
            os.makedirs(folder, exist_ok=True)
        message = str(cli.user_message(error.value))
        assert message.startswith(f"a folder is needed where the file {str(tmp_path / 'runs')!r}")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_log_file_on_a_full_disk_ends_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("full")
    handler = logging.FileHandler("/dev/full")
    logger.addHandler(handler)
    try:
        with pytest.raises(SystemExit) as stop:
            cli.run(lambda _: logger.error("x"), None)
    finally:
        logger.removeHandler(handler)
        handler.stream = open(os.devnull, "w")  # noqa: SIM115  (what is buffered has no place)
        handler.close()
    said = capsys.readouterr().err
    assert stop.value.code == cli.EXIT_CODE
    assert (
        said.splitlines()[-1].startswith("error: no space is left") and "Logging error" not in said
    )


def test_a_faulty_record_is_reported_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("faulty")
    logger.propagate = False  # pytest's own handler raises
    logger.addHandler(handler := logging.StreamHandler(sys.stdout))
    with raising_loggers():
        logger.error("%d", "no number")
    logger.removeHandler(handler)
    assert "Logging error" in capsys.readouterr().err


TALK = """
import logging, os, sys
from mmclipdis.apis.cli import run
reader, writer = os.pipe()
os.dup2(writer, 1)
sys.stdout = os.fdopen(1, "w")
os.close(reader)  # as head does
def main(arguments):
    logger = logging.getLogger("a")
    logger.addHandler(logging.StreamHandler(sys.stdout))
    for i in range(100_000):
        {say}
run(main, None)
"""


@pytest.mark.parametrize("say", ["logger.error('line %d', i)", "print('line', i)"])
def test_a_reader_that_has_read_enough_ends_the_tool_quietly(say: str) -> None:
    done = run_code(TALK.format(say=say))
    assert (done.returncode, done.stderr) == (CLOSED_PIPE, "")
