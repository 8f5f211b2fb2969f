"""Tools in processes of their own, several at once, each with a log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import torch

from mmclipdis.utils.places import PACKAGE, ROOT
from mmclipdis.utils.whole_files import make_folder

T = TypeVar("T")
R = TypeVar("R")
#: Seconds that a process which is told to end has for it.
PATIENCE = 10
#: What the tools print before a line for the user.
_ERROR = "error: "


@dataclass(frozen=True)
class Setup:
    """How tools are started.

    Attributes:
        jobs: how many at once.
        launcher: ``"none"``, one process a tool; ``"pytorch"``, torchrun's.
        processes: of a tool under torchrun; one a GPU where there are GPUs.
    """

    jobs: int = 1
    launcher: str = "none"
    processes: int = 1


class Pool:
    """Does jobs at once, each of which may start one tool; an interruption ends all of them."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False
        self._slots: SimpleQueue[int] = SimpleQueue()
        for slot in range(setup.jobs):
            self._slots.put(slot)

    def each(self, job: Callable[[T], R], tasks: Sequence[T]) -> Generator[tuple[T, R], None, None]:
        """Tasks and what the job made of them, as they are done."""
        with ThreadPoolExecutor(self.setup.jobs) as threads:
            futures = {threads.submit(job, task): task for task in tasks}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except BaseException:  # an interruption, too, starts nothing new
                threads.shutdown(wait=False, cancel_futures=True)
                self._stop()
                raise

    def run(self, tool: str, words: Sequence[str], log: Path) -> str | None:
        """Run ``tools/TOOL.py FILES --work-dir DIR ...``; what it prints goes to ``log``.

        Returns:
            None if it was done, else what is said of it: its own line, if it printed one.
        """
        make_folder(log.parent)
        with self._slot() as slot, log.open("wb") as out:
            with self._lock:
                if self._stopped:
                    return "interrupted"
                process = subprocess.Popen(
                    self._command(tool, words),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **self._environment(slot)},
                )
                self._running.add(process)
            try:
                code = process.wait()
            finally:
                self._running.discard(process)
        return None if code == 0 else _last_line(log, code)

    def _command(self, tool: str, words: Sequence[str]) -> list[str]:
        script = [str(ROOT / "tools" / f"{tool}.py"), *words]
        if self.setup.launcher == "none":
            return [sys.executable, *script]
        several = f"--nproc_per_node={self.setup.processes}"
        # a free port of its own, as tools/dist_test.sh
        torchrun = ["-m", "torch.distributed.run", "--standalone", several]
        # between the files and --cfg-options, which takes all words behind it
        place = script.index("--work-dir")
        script[place:place] = ["--launcher", self.setup.launcher]
        return [sys.executable, *torchrun, *script]

    def _environment(self, slot: int) -> dict[str, str]:
        """This package for the tool, quiet mm libraries, and its share of the GPUs."""
        others = os.environ.get("PYTHONPATH")
        found = os.pathsep.join([str(PACKAGE.parent), *([others] if others else [])])
        environment = {"PYTHONPATH": found, "PYTHONWARNINGS": "ignore::UserWarning"}
        gpus = _gpus()
        if gpus and self.setup.jobs > 1:
            count = self.setup.processes
            mine = [gpus[(slot * count + number) % len(gpus)] for number in range(count)]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(mine))
        return environment

    @contextmanager
    def _slot(self) -> Iterator[int]:
        slot = self._slots.get()
        try:
            yield slot
        finally:
            self._slots.put(slot)

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def _gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def _last_line(log: Path, code: int) -> str:
    """What a tool that failed said last, in one line."""
    lines = log.read_text("utf-8", errors="replace").split("\n")
    told = [line for line in lines if line.startswith(_ERROR)]
    if told:
        return told[0].removeprefix(_ERROR)
    said = [line.strip() for line in lines if line.strip()]
    if code < 0:
        return f"ended by signal {-code}"
    errors = [line for line in said if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return (errors or said or [f"exit code {code}"])[-1]
