"""Runs a job for every number below a count, in order, with a progress bar."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from typing import TypeVar

import cv2
from tqdm import tqdm

Result = TypeVar("Result")


def numbered(
    job: Callable[[int], Result], count: int, *, workers: int, title: str
) -> Iterator[Result]:
    """Yields ``job(0) ... job(count - 1)``, computed by ``workers`` processes (1: this one).

    Raises ValueError if ``workers`` is not positive.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if workers == 1:
        yield from tqdm(map(job, range(count)), title, count)
        return
    # spawn: a fork of a process that runs threads may hang
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from tqdm(pool.imap(job, range(count), chunksize=32), title, count)
