"""Average precision against scikit-learn, a naive loop and golden values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmclipdis.evaluation.precision import average_precision, confusion, precision_recall


def one(scores, target) -> float:
    return float(average_precision(np.array(scores)[:, None], np.array(target)[:, None])[0])


def naive(scores, target) -> float:
    """Mean over the positives of the precision among what scores as high or higher."""
    known = [(s, int(t)) for s, t in zip(scores, target) if t >= 0]  # int8 sums wrap around
    gains = []
    for score, label in known:
        if label == 1:
            above = [t for s, t in known if s >= score]
            gains.append(sum(above) / len(above))
    return sum(gains) / len(gains) if gains else float("nan")


def test_golden() -> None:
    """DCLIP spec, section 10; VOC's 11 points would give 0.7272727."""
    scores, target = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [1, 0, 1, 0, 0, 1]
    assert one(scores, target) == pytest.approx(0.7222222, abs=1e-7)
    assert one(scores, target) == pytest.approx((1 + 2 / 3 + 3 / 6) / 3, abs=1e-15)


def test_equal_scores_are_one_step() -> None:
    for target in ([1, 0, 0], [0, 1, 0], [0, 0, 1]):  # whatever the order
        assert one([0.5, 0.5, 0.5], target) == pytest.approx(1 / 3, abs=1e-15)
    # p saturates: the right image is ranked first by z, and tied with a wrong one by p
    z = np.array([25.0, 20.0, -1.0])
    p = (1 / (1 + np.exp(-z))).astype(np.float32)
    assert one(z, [1, 0, 0]) == 1 and one(p, [1, 0, 0]) == 0.5


def random_case(ties: bool, unknown: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(200, 12))
    if ties:
        scores = scores.round(1)
    target = (rng.random((200, 12)) < np.linspace(0.02, 0.9, 12)).astype(np.int8)
    target[rng.random(target.shape) < unknown] = -1
    return scores, target


@pytest.mark.parametrize("ties", [False, True])
def test_equals_scikit_learn(ties: bool) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores, target = random_case(ties)
    expected = [metrics.average_precision_score(t, s) for s, t in zip(scores.T, target.T)]
    np.testing.assert_allclose(average_precision(scores, target), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("unknown", [0.0, 0.4])
def test_equals_a_naive_loop(ties: bool, unknown: float) -> None:
    scores, target = random_case(ties, unknown)
    expected = [naive(s, t) for s, t in zip(scores.T, target.T)]
    np.testing.assert_allclose(average_precision(scores, target), expected, rtol=0, atol=1e-12)


def test_unknown_labels_are_as_if_the_image_were_not_there() -> None:
    scores, target = random_case(True, 0.3)
    for column in range(12):
        known = target[:, column] >= 0
        rest = one(scores[known, column], target[known, column])
        assert average_precision(scores, target)[column] == pytest.approx(rest, abs=1e-12)


@given(arrays(np.int8, (7, 2), elements=st.integers(-1, 1)), st.permutations(range(7)))
@settings(max_examples=50, deadline=None)
def test_the_order_of_images_and_the_scale_do_not_matter(target, order) -> None:
    scores = np.array([[0, 1], [0, 1], [2, 0], [2, 5], [1, 5], [3, 5], [0, 0]], float)
    value = average_precision(scores, target)
    for again in (
        average_precision(scores[order], target[order]),
        average_precision(7 * scores - 3, target),
        average_precision(scores[:, ::-1], target[:, ::-1])[::-1],
    ):
        np.testing.assert_allclose(again, value, rtol=0, atol=1e-12)


def test_a_class_without_positives_has_none() -> None:
    values = average_precision([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], [[0, 1, -1], [0, 0, 0]])
    np.testing.assert_array_equal(values, [np.nan, 0.5, np.nan])
    assert np.isnan(average_precision(np.zeros((0, 3)), np.zeros((0, 3)))).all()


def test_infinite_scores_are_ranked() -> None:
    assert one([np.inf, 0, -np.inf], [1, 0, 1]) == pytest.approx((1 + 2 / 3) / 2)
    assert one([np.inf, np.inf], [1, 0]) == 0.5


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be nan"):
        average_precision([[np.nan]], [[1]])
    with pytest.raises(ValueError, match=r"got \(2, 1\) and a target of \(1, 2\)"):
        average_precision([[1.0], [2.0]], [[1, 0]])
    with pytest.raises(ValueError, match=r"got \(2,\)"):
        confusion([True, False], [1, 0])


def test_confusion_and_rates_equal_a_count() -> None:
    rng = np.random.default_rng(2)
    predicted, target = rng.random((50, 4)) < 0.5, rng.integers(-1, 2, (50, 4))
    predicted[:, 3] = False
    counts = confusion(predicted, target)
    rates = precision_recall(*counts)
    for c in range(4):
        pairs = list(zip(predicted[:, c].tolist(), target[:, c].tolist()))
        hit, false, missed = (pairs.count(kind) for kind in ((True, 1), (True, 0), (False, 1)))
        assert [count[c] for count in counts] == [hit, false, missed]
        precision = hit / (hit + false) if hit else 0
        recall = hit / (hit + missed) if hit else 0
        f1 = 2 * precision * recall / (precision + recall) if hit else 0
        assert [rate[c] for rate in rates] == pytest.approx([precision, recall, f1], abs=1e-12)
    assert [float(rate) for rate in precision_recall(0, 0, 0)] == [0, 0, 0]
