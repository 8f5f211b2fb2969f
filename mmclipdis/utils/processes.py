"""A job done for each of many tasks, by several processes, with a progress bar.

Ours because ``tqdm.contrib.concurrent.process_map`` and mmengine's ``track_parallel_progress``
return one list when all is done (of up to 24,000 pictures here). Besides, the bar of the first
counts chunks instead of tasks, and the second waits for ever for a process that was killed.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import cv2
from tqdm import tqdm

Task = TypeVar("Task")
Result = TypeVar("Result")

#: Tasks that a process is given at a time.
_CHUNK = 16


def each(
    job: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int,
    *,
    unit: str = "it",
    title: str | None = None,
    spawn: bool = False,
) -> Iterator[Result]:
    """Results of ``job``, in the order of the tasks, as they come.

    A job that fails ends the loop when those that have begun are done; none is cut off, so that
    none leaves an unfinished file. The same holds for an interruption, and for a caller that stops
    asking for results.

    Args:
        job: A function of a module, which other processes can find by its name.
        tasks: What it is called with.
        workers: Processes, each with one thread of OpenCV; 1 or fewer: this process alone.
        unit: What a task is called in the progress bar.
        title: Of the progress bar.
        spawn: Start processes anew instead of by a fork, which may hang in a process that has run
            threads, those of PyTorch included. Each imports first what ``job`` needs.

    Raises:
        OSError: a process was killed.
    """
    bar = {"total": len(tasks), "unit": unit, "desc": title, "disable": None}  # on terminals only
    if workers <= 1:
        yield from tqdm(map(job, tasks), **bar)
        return
    context = multiprocessing.get_context("spawn" if spawn else None)
    try:
        # 0 is OpenCV's word for no threads; 1 would wait, in a fork, for threads left behind
        with ProcessPoolExecutor(workers, context, cv2.setNumThreads, (0,)) as pool:
            try:
                yield from tqdm(pool.map(job, tasks, chunksize=_CHUNK), **bar)
            except BaseException:  # an interruption, too, starts nothing new
                pool.shutdown(cancel_futures=True)
                raise
    except BrokenProcessPool as error:
        raise OSError(
            "one of the processes was killed, perhaps for want of memory; run again with "
            "fewer processes"
        ) from error
