"""The rule by which a claim holds, does not, or is left open; stated before anything is measured.

A claim is a list of *orders* such as ``"mIoU: neither > both > residual alone"``: rows of one
experiment, compared by one metric, neighbour with neighbour. Of two rows

* with runs of the same seeds, the *difference* is the mean over the seeds of the differences, and
  the *spread* their standard deviation (of the sample);
* of which only means and deviations are kept, the difference is that of the means, and the spread
  the root of the sum of the squared deviations.

The comparison holds if the difference exceeds the spread in the direction that is claimed, fails if
it exceeds it in the other one, and is undecided otherwise, as it is with fewer than three seeds in
common, and of tables without any deviation.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

#: Seeds that two rows must share before they are judged.
LEAST = 3


class Verdict(Enum):
    """What can be said of a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    UNDECIDED = "undecided"
    UNSEEN = "cannot be seen here"
    NOT_RUN = "not run yet"


@dataclass(frozen=True)
class Measured:
    """One metric of one row: its value of each seed, or what a table kept of several runs.

    Attributes:
        runs: seed -> value; empty if only ``mean`` and ``std`` are known.
        mean: of the runs.
        std: deviation of the sample; None of a single run.
    """

    runs: Mapping[int, float]
    mean: float
    std: float | None

    @classmethod
    def of_runs(cls, runs: Mapping[int, float]) -> Measured:
        """From the values of at least one seed."""
        values = list(runs.values())
        return cls(runs, statistics.mean(values), _deviation(values))


@dataclass(frozen=True)
class Comparison:
    """Two rows by one metric; ``difference`` and ``spread`` count in the direction of the claim."""

    metric: str
    text: str
    verdict: Verdict
    difference: float | None = None
    spread: float | None = None


def compare(better: Measured | None, worse: Measured | None) -> tuple[Verdict, float, float]:
    """Whether ``better`` is larger than ``worse``, by the rule of this module.

    Returns:
        The verdict, the difference and the spread; both numbers nan where there is none.
    """
    if better is None or worse is None:
        return Verdict.NOT_RUN, math.nan, math.nan
    shared = sorted(set(better.runs) & set(worse.runs))
    if shared or (better.runs and worse.runs):
        differences = [better.runs[seed] - worse.runs[seed] for seed in shared]
        difference = statistics.mean(differences) if shared else math.nan
        spread = statistics.stdev(differences) if len(shared) > 1 else math.nan
        if len(shared) < LEAST:
            return Verdict.UNDECIDED, difference, spread
    else:
        difference = better.mean - worse.mean
        if better.std is None and worse.std is None:
            return Verdict.UNDECIDED, difference, math.nan
        spread = math.hypot(better.std or 0.0, worse.std or 0.0)
    if difference > spread:
        return Verdict.HOLDS, difference, spread
    return (Verdict.FAILS if -difference > spread else Verdict.UNDECIDED), difference, spread


def pairs_of(order: str) -> tuple[str, list[tuple[str, str]]]:
    """Read an order: ``"mIoU: A > B > C"`` is ``("mIoU", [("A", "B"), ("B", "C")])``.

    With ``<`` the claim is that the first is smaller; the larger row of a pair comes first in what
    is returned.

    Raises:
        ValueError: no metric, less than two rows, or both signs.
    """
    metric, colon, rest = order.partition(": ")
    sign = " < " if " < " in rest else " > "
    names = [name.strip() for name in rest.split(sign)]
    if not colon or not metric or len(names) < 2 or not all(names):
        raise ValueError(f"{order!r} is no order of rows; write 'metric: row > row'")
    if sign == " < " and " > " in rest:
        raise ValueError(f"{order!r} has both signs; write two orders")
    found = list(itertools.pairwise(names))
    return metric, [(b, a) for a, b in found] if sign == " < " else found


def judge(
    orders: Iterable[str], rows: Mapping[str, Mapping[str, Measured]]
) -> tuple[Verdict, list[Comparison]]:
    """Verdict of a claim from the measured rows (name -> metric -> values).

    It does not hold if one comparison fails, is not run if one lacks a row and none fails, and is
    undecided if one is.
    """
    found: list[Comparison] = []
    for order in orders:
        metric, pairs = pairs_of(order)
        for larger, smaller in pairs:
            one, other = (rows.get(name, {}).get(metric) for name in (larger, smaller))
            verdict, difference, spread = compare(one, other)
            numbers = [None if math.isnan(x) else x for x in (difference, spread)]
            text = f"{larger} > {smaller}"
            found.append(Comparison(metric, text, verdict, *numbers))
    return _together([one.verdict for one in found]), found


def _together(verdicts: Sequence[Verdict]) -> Verdict:
    for verdict in (Verdict.FAILS, Verdict.NOT_RUN, Verdict.UNDECIDED):
        if verdict in verdicts:
            return verdict
    return Verdict.HOLDS


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
