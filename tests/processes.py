"""Scripts in processes of their own that need not wait for the libraries.

A fresh Python takes seconds to import torch and what builds on it. Here one process imports these
libraries once, runs nothing, and forks for each script (:mod:`multiprocessing`'s ``forkserver``).
The child shares nothing else with the test or with other children: it has its own arguments,
environment, folder, streams, random state and exit code. It imports mmcv, mmdet, mmseg and, from
this repository, mmclipdis itself, so that a test may block or replace them. Where the start of
Python is what is tested, use :mod:`subprocess`.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.forkserver import ForkServer
from pathlib import Path
from unittest import mock

from tests.paths import ROOT

LIBRARIES = [
    *("torch", "torch._dynamo", "torch.distributed", "torchvision", "mmengine", "mmengine.runner"),
    *("cv2", "ftfy", "lvis", "matplotlib.pyplot", "open_clip", "pycocotools", "pytest", "timm"),
    *("scipy.ndimage", "scipy.optimize", "scipy.stats", "sklearn.cluster"),
    *("sklearn.gaussian_process", "sklearn.mixture"),
]
#: What each child imports itself.
LEFT_OUT = ("mmclipdis", "mmcv", "mmdet", "mmseg")

#: Not the one that multiprocessing keeps for everybody, which may have imported what is under test.
SERVER = ForkServer()
SERVER.set_forkserver_preload(LIBRARIES)


@contextmanager
def forked_from(server: ForkServer) -> Iterator[None]:
    """Have the processes that start in the block by ``forkserver`` come from this one."""
    connect = server.connect_to_new_process
    with mock.patch.object(multiprocessing.forkserver, "connect_to_new_process", connect):
        yield


def _start_server() -> None:
    """Start the process that imports the libraries, unless it runs already."""
    start = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    start["MMCLIPDIS_NO_STARTUP"] = "1"  # nothing of what is under test, by mmclipdis.pth either
    with mock.patch.dict(os.environ, start):
        SERVER.ensure_running()


def run_script(
    script: Path,
    *arguments: str,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    timeout: float = 240,
) -> subprocess.CompletedProcess[str]:
    """Run a file as ``python script arguments ...`` would, and wait for it.

    Args:
        script: The file to run; its folder comes first on ``sys.path``.
        arguments: What it finds in ``sys.argv`` after its own name.
        cwd: The folder it runs in.
        env: Its environment; None for that of the test.
        timeout: Seconds after which it is killed, with the processes that it started.

    Returns:
        Exit code (negative for a signal) and what it wrote to its two streams.

    Raises:
        subprocess.TimeoutExpired: It did not end in time.
    """
    start = [str(script), *arguments]
    return _run(start, None, cwd, env, timeout)


def run_code(
    code: str,
    *,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    timeout: float = 240,
) -> subprocess.CompletedProcess[str]:
    """Run a text as ``python -c code`` would; see :func:`run_script`."""
    return _run(["-c"], code, cwd, env, timeout)


def _run(
    argv: list[str],
    code: str | None,
    cwd: Path,
    env: Mapping[str, str] | None,
    timeout: float,
) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ if env is None else env)
    _start_server()
    with tempfile.TemporaryDirectory() as folder:
        streams = (os.path.join(folder, "out"), os.path.join(folder, "err"))
        child = multiprocessing.get_context("forkserver").Process(
            target=_child, args=(argv, code, str(cwd), environment, streams)
        )
        with forked_from(SERVER):
            child.start()
        child.join(timeout)
        late = child.is_alive()
        if late:
            _kill(child)
        out, err = (Path(s).read_text() if os.path.exists(s) else "" for s in streams)
    if late:
        raise subprocess.TimeoutExpired(argv, timeout, out, err)
    assert child.exitcode is not None
    return subprocess.CompletedProcess(argv, child.exitcode, out, err)


def _kill(child: multiprocessing.process.BaseProcess) -> None:
    """End a process and those that it started."""
    assert child.pid is not None
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:  # not yet at the head of its group
        child.kill()
    child.join()


def _child(
    argv: list[str],
    code: str | None,
    cwd: str,
    environment: dict[str, str],
    streams: tuple[str, str],
) -> None:
    """Runs in the forked process: what Python does up to the first line of a script, then that."""
    os.setsid()
    for number, path in zip((1, 2), streams, strict=True):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    first = "" if code is not None else os.path.dirname(os.path.abspath(argv[0]))
    rest = [path for path in sys.path if path not in ("", str(ROOT))]
    sys.path[:] = [first, str(ROOT), *rest]
    _check_fresh()
    import numpy as np

    np.random.seed()  # the parent's would be the same in all children
    sys.argv[:] = argv
    if code is None:
        runpy.run_path(argv[0], run_name="__main__")
    else:
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), main.__dict__)


def _check_fresh() -> None:
    """What is under test is not imported yet, and will come from this repository."""
    early = [name for name in LEFT_OUT if name in sys.modules]
    if early:
        raise RuntimeError(f"{early} are imported before the script starts")
    spec = importlib.util.find_spec("mmclipdis")
    if spec is None or spec.origin != str(ROOT / "mmclipdis" / "__init__.py"):
        raise RuntimeError(f"mmclipdis would come from {spec and spec.origin}, not from {ROOT}")
