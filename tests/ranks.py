"""Functions run in several processes that form one gloo group, with a limit of their own.

A server imports what is heavy once and forks each rank (``forkserver``). A fork of pytest's own
process would save that import, but it may hang on a thread that torch has started there, and cannot
train at all where there is a GPU.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes

from tests.paths import ROOT
from tests.processes import forked_from

#: A server of our own: that of multiprocessing may be used by others, who preload something else.
_SERVER = multiprocessing.forkserver.ForkServer()
_SERVER.set_forkserver_preload(["pytest", "mmclipdis.apis", "mmseg.models", "mmdet.models"])


def run_ranks(
    function: Callable[..., Any], world_size: int, *arguments: Any, timeout: float = 240.0
) -> list[Any]:
    """Call ``function(rank, *arguments)`` in each of ``world_size`` processes of one group.

    A rank has one torch thread, no GPU, the environment of the caller and torchrun's variables.
    Function and arguments are pickled: the function stands at the top of its module, and what a
    fixture has patched is not there.

    Args:
        function: Called in a group that is initialised; may take it down itself, to go on alone.
        world_size: Number of processes.
        arguments: Handed to every rank.
        timeout: Seconds for all of it; enough for the imports on a busy machine.

    Returns:
        What the ranks returned, in the order of the ranks.

    Raises:
        ProcessRaisedException: a rank failed. The text is its traceback; of several, that of the
            rank which failed first. The others are ended at once.
        ProcessExitedException: a rank died without an exception.
        TimeoutError: some ranks, which are named, were still running; they are killed.
    """
    end = time.monotonic() + timeout
    with (
        tempfile.TemporaryDirectory(prefix="ranks_") as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("CUDA_VISIBLE_DEVICES", "")  # for the server too: libraries look at import
        folder = Path(name)
        task = (function, world_size, arguments, folder, dict(os.environ))
        with forked_from(_SERVER):
            context = start_processes(
                _rank, task, nprocs=world_size, join=False, start_method="forkserver"
            )
        try:
            while not context.join(max(0.0, end - time.monotonic())):
                running = [r for r, process in enumerate(context.processes) if process.is_alive()]
                if running and time.monotonic() >= end:
                    raise TimeoutError(
                        f"{function.__name__}: ranks {running} of {world_size} were still running "
                        f"after {timeout:g} s and have been killed; one of them waits for a rank "
                        "that will not come, or the limit is too short."
                    )
        finally:
            for process in context.processes:
                process.kill()
                process.join()
        return [pickle.loads(_result(folder, rank).read_bytes()) for rank in range(world_size)]


def _result(folder: Path, rank: int) -> Path:
    return folder / f"{rank}.result"


def _rank(
    rank: int,
    function: Callable[..., Any],
    world_size: int,
    arguments: tuple[Any, ...],
    folder: Path,
    environment: Mapping[str, str],
) -> None:
    """One rank: its environment, its group, the call and what that returned."""
    os.environ.clear()
    os.environ.update(environment)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    multiprocessing.set_start_method(None, force=True)  # workers of loaders start as anywhere else
    torch.set_num_threads(1)
    # a file: no port that another run of tests may take
    meeting = f"file://{folder}/meeting"
    try:
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
        _result(folder, rank).write_bytes(pickle.dumps(function(rank, *arguments)))
    except (Exception, pytest.fail.Exception) as error:
        _only_the_first(folder / "failed")
        if isinstance(error, Exception):
            raise
        raise AssertionError(str(error)) from error  # torch hands over an Exception, no other
    if dist.is_initialized():  # the function may have ended it
        dist.destroy_process_group()


def _only_the_first(mark: Path) -> None:
    """Return in the first rank that fails; others fail because of it, and wait for their end."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        signal.pause()


@contextmanager
def group_of_one() -> Iterator[None]:
    """Make this process the only rank of a group: what DDP needs, and nothing is waited for."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def launch(script: str, *words: str, timeout: float = 300.0) -> subprocess.CompletedProcess[str]:
    """Run a launcher of ``tools/`` on CPUs; at the limit, all that it has started ends with it.

    Args:
        script: Name of the launcher: ``dist_train.sh``.
        words: Its arguments.
        timeout: Seconds for all of it.

    Raises:
        TimeoutError: it was still running, with the end of what it had said.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if name != "LOCAL_RANK"},
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PORT": str(_free_port()),
        "PYTHON": sys.executable,
    }
    command = ["bash", str(ROOT / "tools" / script), *words]
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of processes, which can be ended as one
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)  # torchrun ends its ranks, which have own groups
        try:
            out, err = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
        raise TimeoutError(
            f"{script} was still running after {timeout:g} s and has been ended; its last words:\n"
            f"{err[-3000:]}"
        ) from None
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _free_port() -> int:
    """A port of this moment: torchrun takes a number, and cannot choose one itself."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
