"""The measures of multi-label recognition: golden values, naive counts, what cannot be measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.structures import BaseDataElement

from mmclipdis.evaluation import multi_label_metric as module
from mmclipdis.evaluation.multi_label_metric import MultiLabelMetric
from tests.ranks import run_ranks

KEYS = ("mAP", "CP", "CR", "CF1", "CF1_h", "OP", "OR", "OF1")


def samples(logits, target, scores=None) -> list[dict]:
    logits, target = torch.as_tensor(logits).float(), torch.as_tensor(target).float()
    scores = logits.sigmoid() if scores is None else torch.as_tensor(scores).float()
    elements = [
        BaseDataElement(metainfo={"img_path": f"{i}.jpg"}, pred_logit=z, pred_score=p, gt_score=y)
        for i, (z, p, y) in enumerate(zip(logits, scores, target))
    ]
    return [element.to_dict() for element in elements]  # as mmengine's Evaluator does


def metric(*batches, classes=None, **options) -> MultiLabelMetric:
    made = MultiLabelMetric(**options)
    made.dataset_meta = {"classes": classes} if classes else {}
    for batch in batches:
        made.process(None, batch)
    return made


@pytest.fixture
def said(monkeypatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(module, "print_log", lambda text, **_: lines.append(text))
    return lines


PREDICTED = np.array([[1, 0], [1, 1], [1, 0], [0, 1]])
TARGET = np.array([[1, 0], [0, 1], [1, 1], [0, 1]])


def test_golden_decisions() -> None:
    """DCLIP spec, section 10."""
    found = metric(samples(4.0 * PREDICTED - 2, TARGET)).evaluate(4)
    assert tuple(found) == KEYS
    assert found["CP"] == found["CR"] == found["CF1_h"] == pytest.approx(83.333, abs=1e-3)
    assert found["CF1"] == pytest.approx(80)
    assert found["OP"] == found["OR"] == found["OF1"] == pytest.approx(80)


def test_golden_average_precision() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]]).T
    found = metric(samples(scores, np.array([[1, 0, 1, 0, 0, 1]]).T)).evaluate(6)
    assert found["mAP"] == pytest.approx(72.22222, abs=1e-5)


def naive(decided: np.ndarray, target: np.ndarray) -> dict[str, float]:
    by_class, sums = [], np.zeros(3)
    for column in range(target.shape[1]):
        pairs = list(zip(decided[:, column].tolist(), target[:, column].tolist()))
        hit, false, missed = (pairs.count(kind) for kind in ((True, 1), (True, 0), (False, 1)))
        sums += hit, false, missed
        p, r = (hit / (hit + false), hit / (hit + missed)) if hit else (0, 0)
        by_class.append((p, r, 2 * p * r / (p + r) if hit else 0))
    cp, cr, cf1 = np.mean(by_class, axis=0)
    op, o_r = sums[0] / (sums[0] + sums[1]), sums[0] / (sums[0] + sums[2])
    values = (cp, cr, cf1, 2 * cp * cr / (cp + cr), op, o_r, 2 * op * o_r / (op + o_r))
    return {key: 100 * float(value) for key, value in zip(KEYS[1:], values)}


def random_case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, (60, 7))
    logits = (rng.normal(size=(60, 7)) + target).astype(np.float32)
    target[rng.random((60, 7)) < 0.2] = -1
    return logits, target


def test_random_decisions_equal_a_naive_count() -> None:
    logits, target = random_case()
    parts = samples(logits, target)
    found = metric(parts[:40], parts[40:], topk=(1, 3)).evaluate(60)
    assert set(found) == {*KEYS, *(f"{key}_top{k}" for key in KEYS[1:] for k in (1, 3))}
    expected = naive(logits > 0, target)
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-9)
    for k in (1, 3):
        decided = np.array([[v in sorted(row)[-k:] for v in row] for row in logits])
        best = {f"{key}_top{k}": value for key, value in naive(decided, target).items()}
        assert {key: found[key] for key in best} == pytest.approx(best, abs=1e-9)


def test_mean_average_precision_equals_scikit_learn() -> None:
    score = pytest.importorskip("sklearn.metrics").average_precision_score
    logits, target = random_case()
    found = metric(samples(logits, target)).evaluate(60)
    columns = [(z[y >= 0], y[y >= 0]) for z, y in zip(logits.T, target.T)]
    expected = 100 * np.mean([score(y, z) for z, y in columns])
    assert found["mAP"] == pytest.approx(expected, abs=1e-9)


def test_unknown_labels_count_nowhere() -> None:
    logits, target = random_case()
    other = np.where(target < 0, -logits, logits)  # other predictions where nothing is known
    assert metric(samples(other, target)).evaluate(60) == metric(samples(logits, target)).evaluate(
        60
    )


def test_z_ranks_where_p_is_saturated() -> None:
    found = metric(samples([[25.0], [20.0]], [[1], [0]])).evaluate(2)
    assert found["mAP"] == 100 and found["OP"] == 50


def test_a_score_at_the_threshold_is_no_prediction() -> None:
    scores = [[0.3], [0.30001], [0.9]]
    found = metric(samples(scores, [[0], [0], [1]], scores), thr=0.3).evaluate(3)
    assert found["OP"] == pytest.approx(50)
    found = metric(samples([[0.0], [1.0]], [[0], [1]])).evaluate(2)  # p = 0.5
    assert found["OP"] == 100


def test_equal_logits_among_the_best_go_to_the_first_class() -> None:
    found = metric(samples([[1.0, 1, 1, 0]], [[1, 1, 0, 1]]), topk=2).evaluate(1)
    assert found["OP_top2"] == 100 and found["OR_top2"] == pytest.approx(200 / 3)


# ---- classes without positives ----------------------------------------------------------------

LOGITS = np.array([[2.0, 1, -1, 1], [-1, 2, -1, -1]])
ABSENT = np.array([[1, 0, 0, -1], [0, 1, 0, 0]])  # nothing of c; of d nothing is known


def test_absent_classes_are_left_out_and_named(said: list[str]) -> None:
    found = metric(samples(LOGITS, ABSENT), classes=("a", "b", "c", "d")).evaluate(2)
    assert said == [
        "2 of 4 classes have no positive image and are left out of the means: c, d",
    ]
    assert found["mAP"] == 100 and found["CR"] == 100 and found["CP"] == 75
    assert found["OP"] == pytest.approx(200 / 3)


def test_absent_classes_count_as_0_on_demand(said: list[str]) -> None:
    found = metric(
        samples(LOGITS, ABSENT), classes=("a", "b", "c", "d"), absent_classes="zero"
    ).evaluate(2)
    assert said[0].endswith("are counted as 0: c, d")
    assert found["mAP"] == 50 and found["CR"] == 50 and found["CP"] == 37.5
    assert found["OP"] == pytest.approx(200 / 3)


def test_without_any_positive_there_is_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="no image of the data set is labelled with any class"):
        metric(samples([[1.0]], [[0]])).evaluate(1)


def test_table_of_every_class(said: list[str]) -> None:
    metric(samples(LOGITS, ABSENT), classes=tuple("abcd"), per_class=True).evaluate(2)
    _, head, *lines = said[-1].splitlines()
    assert head.split() == ["class", "images", "AP", "precision", "recall", "F1"]
    assert lines[1].split() == ["b", "1", "100.00", "50.00", "100.00", "66.67"]
    assert lines[2].split() == ["c", "0", "nan", "0.00", "0.00", "0.00"] and len(lines) == 4


# ---- what cannot be measured ------------------------------------------------------------------


def test_nan_names_the_images_and_the_iteration() -> None:
    logits = np.ones((7, 2))
    logits[[1, 2], 1] = np.nan
    with pytest.raises(
        ValueError, match=r"are nan or infinite for 2 of 7 images .*: 1.jpg, 2.jpg;"
    ):
        metric(samples(logits, np.ones((7, 2))))
    MessageHub.get_current_instance().update_info("iter", 41)
    try:
        with pytest.raises(ValueError, match="after iteration 42 are nan .* 3.jpg, 4.jpg, ...;"):
            metric(samples(logits * np.nan, np.ones((7, 2))))
    finally:
        MessageHub.get_current_instance().runtime_info.pop("iter")
    for logit, score in ((1.0, np.nan), (np.inf, 1.0), (-np.inf, 0.0)):
        with pytest.raises(ValueError, match="infinite for 1 of 1 images of a batch: 0.jpg;"):
            metric(samples([[logit]], [[1]], [[score]]))


def test_a_sample_without_labels_is_one_clear_error() -> None:
    batch = samples(np.ones((2, 1)), np.ones((2, 1)))
    del batch[1]["gt_score"]
    with pytest.raises(ValueError, match=r"^1.jpg has no gt_score.*PackMultiLabelInputs"):
        metric(batch)


def test_predictions_of_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="0.jpg: 3 predictions for 2 labels"):
        metric(samples([[1.0, 2, 3]], [[1, 0]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thr": 1.5}, r"thr must be in \[0, 1\], got 1.5"),
        ({"topk": 0}, "topk must be at least 1, got 0"),
        ({"absent_classes": "drop"}, r"one of \('skip', 'zero'\), got 'drop'"),
    ],
)
def test_options_are_checked(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        MultiLabelMetric(**options)


def test_more_best_classes_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match=r"topk=\(3,\), but there are 2 classes"):
        metric(samples([[1.0, 2]], [[1, 0]]), topk=3).evaluate(1)


# ---- two processes ----------------------------------------------------------------------------


def _worker(rank: int) -> dict[str, float]:
    parts = samples(*random_case())[:13]
    # as DefaultSampler deals them: the first image comes again at the end
    return metric([parts[i % 13] for i in range(rank, 14, 2)]).evaluate(13)


def test_two_processes_score_as_one() -> None:
    expected = metric(samples(*random_case())[:13]).evaluate(13)
    assert run_ranks(_worker, 2) == [expected, expected]


def test_every_class_in_a_file(tmp_path) -> None:
    path = tmp_path / "classes.csv"
    names = ("a", "b, b", "c")
    found = metric(
        samples([[2.0, 1, -1], [3, -1, -1]], [[1, 1, 0], [0, 1, 0]]),
        classes=names,
        per_class_file=str(path),
    ).evaluate(2)
    assert path.read_text().splitlines() == [
        "class,images,AP,precision,recall,F1",
        "a,1,50.0000,50.0000,100.0000,66.6667",
        '"b, b",2,100.0000,100.0000,50.0000,66.6667',
        "c,0,,0.0000,0.0000,0.0000",
    ]
    assert found["mAP"] == 75
