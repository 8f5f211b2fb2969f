"""The rule of the verdicts, against one written out by hand. Milliseconds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from mmclipdis.apis.claims.verdict import Measured, Verdict, compare, judge, pairs_of


def runs(*values: float) -> Measured:
    return Measured.of_runs(dict(enumerate(values)))


def kept(mean: float, std: float | None) -> Measured:
    return Measured({}, mean, std)


def by_hand(a: list[float], b: list[float]) -> str:
    """Lead and spread of paired runs, in words."""
    leads = [x - y for x, y in zip(a, b, strict=True)]
    lead = sum(leads) / len(leads)
    spread = math.sqrt(sum((x - lead) ** 2 for x in leads) / (len(leads) - 1))
    if abs(lead) <= spread:
        return "undecided"
    return "holds" if lead > 0 else "does not hold"


def test_paired_runs_are_judged_as_by_hand() -> None:
    rng = np.random.default_rng(0)
    found = set()
    for _ in range(200):
        a, b = rng.normal(rng.uniform(-2, 2), 1, 3).tolist(), rng.normal(0, 1, 3).tolist()
        verdict = compare(runs(*a), runs(*b))[0]
        assert verdict.value == by_hand(a, b)
        found.add(verdict)
    assert len(found) == 3


def test_what_all_seeds_share_does_not_count_as_spread() -> None:
    """Ten points between seeds, but each leads by two."""
    assert compare(runs(12, 22, 33), runs(10, 20, 30))[0] is Verdict.HOLDS
    assert compare(kept(22.3, 10.5), kept(20, 10))[0] is Verdict.UNDECIDED


def test_only_shared_seeds_are_compared() -> None:
    one = Measured.of_runs({0: 5, 1: 6, 2: 7, 3: 100})
    other = Measured.of_runs({0: 4, 1: 4.5, 2: 6, 4: -9})
    assert compare(one, other) == (Verdict.HOLDS, pytest.approx(7 / 6), pytest.approx(0.2886751))


def test_means_and_deviations_of_a_table() -> None:
    assert compare(kept(10, 3), kept(4, 4)) == (Verdict.HOLDS, 6, 5)
    assert compare(kept(9, 3), kept(4, 4)) == (Verdict.UNDECIDED, 5, 5)
    assert compare(kept(4, 4), kept(10, 3)) == (Verdict.FAILS, -6, 5)
    assert compare(kept(10, None), kept(4, 4)) == (Verdict.HOLDS, 6, 4)


def test_fewer_than_three_seeds_decide_nothing_and_a_lacking_row_is_not_run() -> None:
    assert compare(runs(9), runs(1))[0] is Verdict.UNDECIDED
    assert compare(runs(9, 10), runs(1, 2, 3)) == (Verdict.UNDECIDED, 8, 0)
    assert compare(runs(9, 9, 9), Measured.of_runs({7: 1, 8: 2, 9: 3}))[0] is Verdict.UNDECIDED
    assert compare(kept(9, None), kept(1, None))[0] is Verdict.UNDECIDED
    assert compare(runs(9, 9, 9), None)[0] is Verdict.NOT_RUN


def test_a_claim_is_as_good_as_its_worst_comparison() -> None:
    rows = {
        "high": {"m": runs(9, 9.1, 9)},
        "mid": {"m": runs(5, 5.1, 5)},
        "same": {"m": runs(5.1, 5, 5)},
    }
    expected = {
        "m: high > mid": Verdict.HOLDS,
        "m: mid < high": Verdict.HOLDS,
        "m: mid > high": Verdict.FAILS,
        "m: high > mid > same": Verdict.UNDECIDED,
        "m: high > absent": Verdict.NOT_RUN,
        "other: high > mid": Verdict.NOT_RUN,
    }
    for order, verdict in expected.items():
        assert judge([order], rows)[0] is verdict
    assert judge(["m: high > mid > same", "m: mid > high"], rows)[0] is Verdict.FAILS
    assert judge(["m: high > mid > same", "m: high > absent"], rows)[0] is Verdict.NOT_RUN
    assert judge(["m: absent > mid > high"], rows)[0] is Verdict.FAILS  # what is there decides


def test_the_numbers_count_in_the_direction_of_the_claim() -> None:
    rows = {"low": {"m": runs(1, 2, 3)}, "high": {"m": runs(5, 7, 9)}}
    (comparison,) = judge(["m: low < high"], rows)[1]
    assert comparison.text == "high > low"
    assert (comparison.difference, comparison.spread) == (5, 1)


def test_orders_are_read() -> None:
    assert pairs_of("mIoU: a > b, c > d + e") == ("mIoU", [("a", "b, c"), ("b, c", "d + e")])
    assert pairs_of("cos: a < b < c") == ("cos", [("b", "a"), ("c", "b")])
    names = list(itertools.pairwise("abc"))
    assert pairs_of("x: a > b > c")[1] == names


@pytest.mark.parametrize("order", ["a > b", "mIoU: a", ": a > b", "mIoU: a >  > b", "m: "])
def test_what_is_no_order_is_named(order: str) -> None:
    with pytest.raises(ValueError, match="is no order of rows; write 'metric: row > row'"):
        pairs_of(order)


def test_an_order_has_one_sign() -> None:
    with pytest.raises(ValueError, match="has both signs; write two orders"):
        pairs_of("mIoU: a > b < c")
