"""mAcc against a count by hand, the golden value, and two processes against one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmclipdis.evaluation.region_accuracy import RegionAccuracy, class_accuracy
from tests.ranks import run_ranks

META = dict(classes=("a", "b", "c", "d"), isthing=(True, True, False, False))


def sample(labels, **kinds) -> dict:
    predictions = {
        kind: torch.tensor(best) if labels else torch.zeros(0, 3) for kind, best in kinds.items()
    }
    return dict(
        gt_regions=dict(labels=torch.tensor(labels, dtype=torch.long)), pred_regions=predictions
    )


def metric(*samples, meta=META, **kwargs) -> RegionAccuracy:
    made = RegionAccuracy(**kwargs)
    made.dataset_meta = meta
    made.process(None, samples)
    return made


def test_golden() -> None:
    """DeCLIP spec, golden G16: labels 0, 0, 1, of which 1, 0, 1 right; absent classes skipped."""
    accuracy = class_accuracy(np.array([0, 0, 1]), np.array([True, False, True]), 4)
    assert accuracy[:2].tolist() == [50, 100] and np.isnan(accuracy[2:]).all()
    scores = metric(sample([0, 0, 1], rois=[[0], [1], [1]])).evaluate(1)
    assert scores["rois_thing_macc1"] == 75
    assert math.isnan(scores["rois_stuff_macc1"])


def test_things_and_stuff_and_kinds_are_apart() -> None:
    first = sample([0, 2], rois=[[0, 1, 2], [1, 3, 0]], maskpool=[[1, 2, 3], [2, 0, 1]])
    second = sample([2, 3], rois=[[2, 0, 1], [3, 1, 0]], maskpool=[[3, 2, 0], [1, 0, 2]])
    scores = metric(first, sample([], rois=[], maskpool=[]), second).evaluate(3)
    assert scores == {
        "rois_thing_macc1": 100,
        "rois_stuff_macc1": 75,  # c: one of two, d: one of one
        "rois_thing_macc5": 100,
        "rois_stuff_macc5": 75,
        "maskpool_thing_macc1": 0,
        "maskpool_stuff_macc1": 25,
        "maskpool_thing_macc5": 0,
        "maskpool_stuff_macc5": 50,  # c is among the best of both, d of none
    }


def test_only_the_first_five_count() -> None:
    meta = dict(classes=tuple("abcdefgh"), isthing=(True,) * 8)
    best = [[1, 2, 3, 4, 0, 5], [1, 2, 3, 4, 5, 0]]
    scores = metric(sample([0, 0], rois=best), meta=meta).evaluate(1)
    assert scores["rois_thing_macc1"] == 0 and scores["rois_thing_macc5"] == 50


def naive(labels, best, members, k) -> float:
    per_class = []
    for index in members:
        rows = [row for row, label in zip(best, labels) if label == index]
        if rows:
            per_class.append(sum(index in row[:k] for row in rows) / len(rows))
    return 100 * sum(per_class) / len(per_class)


def random_samples(count: int) -> list[dict]:
    rng = np.random.default_rng(0)
    out = []
    for size in rng.integers(0, 9, count):
        best = [rng.permutation(12)[:5].tolist() for _ in range(size)]
        out.append(sample(rng.integers(0, 12, size).tolist(), rois=best, crops=best[::-1]))
    return out


RANDOM_META = dict(classes=tuple("abcdefghijkl"), isthing=(True, False) * 6)


def test_random_predictions_equal_a_naive_count() -> None:
    samples = random_samples(30)
    scores = metric(*samples, meta=RANDOM_META).evaluate(30)
    labels = [x for s in samples for x in s["gt_regions"]["labels"].tolist()]
    for kind in ("rois", "crops"):
        best = [row for s in samples for row in s["pred_regions"][kind].tolist()]
        for group, members in (("thing", range(0, 12, 2)), ("stuff", range(1, 12, 2))):
            for k in (1, 5):
                expected = naive(labels, best, members, k)
                assert scores[f"{kind}_{group}_macc{k}"] == pytest.approx(expected, abs=1e-9)


def _worker(rank: int) -> dict[str, float]:
    samples = random_samples(7)
    # as DefaultSampler deals them: the last image comes twice
    own = [samples[i % 7] for i in range(rank, 8, 2)]
    return metric(*own, meta=RANDOM_META).evaluate(7)


def test_two_processes_score_as_one() -> None:
    expected = metric(*random_samples(7), meta=RANDOM_META).evaluate(7)
    assert run_ranks(_worker, 2) == [expected, expected]


def test_table_of_the_classes_that_occur(monkeypatch) -> None:
    said: list[str] = []
    place = "mmclipdis.evaluation.region_accuracy.print_log"
    monkeypatch.setattr(place, lambda text, **_: said.append(text))
    metric(sample([0, 0, 2], rois=[[0], [1], [2]])).evaluate(1)
    assert said == ["2 of 4 classes have no region and are in no mean: b, d"]
    said.clear()
    metric(sample([0, 0, 2], rois=[[0], [1], [2]]), per_class=True).evaluate(1)
    _, head, *lines = said[-1].splitlines()
    assert head.split() == ["class", "regions", "rois", "top-1", "rois", "top-5"]
    assert lines[0].split() == ["a", "2", "50.00", "50.00"]
    assert lines[1].split() == ["c", "1", "100.00", "100.00"] and len(lines) == 2


def test_data_without_things_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs metainfo\['isthing'\]"):
        metric(sample([0], rois=[[0]]), meta=dict(classes=("a",))).evaluate(1)
