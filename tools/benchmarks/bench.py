"""What the benchmarks share: interleaved timing, peak memory, claims with a target, writing.

A machine that does other things, or changes its clock, makes times of different minutes
incomparable. So the cases of a benchmark take turns, round by round, and what is reported is the
median over the rounds of the *ratio within a round*.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmclipdis.engine.results import write_results
from mmclipdis.utils import places
from mmclipdis.utils.peak_memory import peak_mb as peak_mb  # the benchmarks take it from here

RESULTS = places.RESULTS / "benchmarks.json"
Case = Callable[[], Any]


@dataclass(frozen=True)
class Timings:
    """Seconds of every case in every round: ``{case: (round 0, round 1, ...)}``."""

    seconds: Mapping[str, tuple[float, ...]]

    def median(self, case: str) -> float:
        """Median seconds of ``case``."""
        return statistics.median(self.seconds[case])

    def ratio(self, case: str, other: str) -> float:
        """Median over the rounds of seconds of ``case`` / seconds of ``other``."""
        pairs = zip(self.seconds[case], self.seconds[other], strict=True)
        return statistics.median(a / b for a, b in pairs)

    def shares(self, title: str) -> list[dict[str, Any]]:
        """A row a case, with its time and its share of the case ``tower``."""
        return [
            {
                "name": f"{title}, {name}",
                "metrics": {
                    "time_ms": 1e3 * self.median(name),
                    "share_of_tower": self.ratio(name, "tower"),
                },
            }
            for name in self.seconds
        ]


def interleave(
    cases: Mapping[str, Case],
    rounds: int,
    *,
    warmup: int = 1,
    device: str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> Timings:
    """Time ``cases`` in turn, ``rounds`` times, after ``warmup`` untimed rounds.

    Every other round goes through them backwards, so that none is always the one after another.

    Raises:
        ValueError: for no case or no round.
    """
    if not cases or rounds < 1:
        raise ValueError(f"nothing to time: {len(cases)} cases in {rounds} rounds")
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(-warmup, rounds):
        order = list(cases) if number % 2 == 0 else list(cases)[::-1]
        for name in order:
            elapsed = _time(cases[name], device, clock)
            if number >= 0:
                seconds[name].append(elapsed)
    return Timings({name: tuple(values) for name, values in seconds.items()})


def _time(case: Case, device: str, clock: Callable[[], float]) -> float:
    is_cuda = torch.device(device).type == "cuda"
    if is_cuda:
        torch.cuda.synchronize(device)
    start = clock()
    result = case()
    if is_cuda:
        torch.cuda.synchronize(device)
    elapsed = clock() - start
    del result  # freeing it is not part of the next case
    return elapsed


def peak_above(case: Case, interval: float = 0.005) -> float:
    """Most MB (1e6 bytes) of resident memory while ``case`` runs, above what was resident before.

    Looked up every ``interval`` seconds, so a shorter peak may be missed.

    Raises:
        RuntimeError: Not on Linux.
    """
    if not sys.platform.startswith("linux"):
        raise RuntimeError("resident memory is read from /proc: run this benchmark on Linux")
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc; freed memory that the process still holds would hide new memory
        trim(0)
    before = peak = _resident_mb()
    stop = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(interval):
            peak = max(peak, _resident_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = case()
        peak = max(peak, _resident_mb())
        del result
    finally:
        stop.set()
        watcher.join()
    return peak - before


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def matmul_case(size: int = 2048, device: str = "cpu") -> tuple[Case, float]:
    """A product of two square fp32 matrices, the machine's own rate, and its FLOPs."""
    left, right = torch.randn(2, size, size, device=device)
    return lambda: left @ right, 2.0 * size**3


@dataclass(frozen=True)
class Claim:
    """A number that has to be on one side of a bound, both of them inclusive.

    Attributes:
        name: What is measured, with its unit unless it is a ratio.
        measured: The value.
        at_least: Lower bound, or None.
        at_most: Upper bound, or None.
    """

    name: str
    measured: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the value keeps its bounds."""
        low = -float("inf") if self.at_least is None else self.at_least
        high = float("inf") if self.at_most is None else self.at_most
        return low <= self.measured <= high

    @property
    def target(self) -> str:
        """The bounds as text, ``≥ 1.6``."""
        bounds = (("≥", self.at_least), ("≤", self.at_most))
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)

    def row(self) -> dict[str, Any]:
        """Row of a results file."""
        return {"name": self.name, "metrics": {"measured": self.measured, "target": self.target}}


def make_parser(doc: str, rounds: int) -> argparse.ArgumentParser:
    """Command line with the options of every benchmark: rounds, threads, clock, write."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=rounds, help="timed rounds of all cases")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="'cpu' counts this process's processor time: with --threads 1, ratios that hold "
        "still on a machine that others use as well",
    )
    parser.add_argument("--write", action="store_true", help=f"merge the rows into {RESULTS.name}")
    return parser


def clock_of(args: argparse.Namespace) -> Callable[[], float]:
    """The clock that ``--clock`` names; applies ``--threads``."""
    torch.set_num_threads(args.threads)
    return time.process_time if args.clock == "cpu" else time.perf_counter


def report(
    args: argparse.Namespace,
    rows: Sequence[Mapping[str, Any]],
    claims: Iterable[Claim] = (),
    *,
    seeds: Sequence[int] = (0,),
    device: str = "cpu",
) -> None:
    """Print rows and claims; with ``--write`` merge them into ``results/benchmarks.json``."""
    claims = list(claims)
    width = max(len(item) for item in [*(row["name"] for row in rows), *(c.name for c in claims)])
    for row in rows:
        values = [f"{name} {_round(value)}" for name, value in row["metrics"].items()]
        print(f"{row['name']:{width}}  {'  '.join(values)}")
    for claim in claims:
        verdict = "holds" if claim.holds else "MISSED"
        print(f"{claim.name:{width}}  {claim.measured:.3g}  target {claim.target}  {verdict}")
    if args.write:
        everything = [*rows, *(claim.row() for claim in claims)]
        rounded = [{**row, "metrics": _rounded(row["metrics"])} for row in everything]
        write_results(RESULTS, rounded, seeds=seeds, merge=True, device=device)
        print(f"merged into {RESULTS}")


def _rounded(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _round(value) for name, value in metrics.items()}


def _round(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
