"""Streaming predictions equal the plain form; the post-processing has the published numbers."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmclipdis.models.segmentation import prediction
from mmclipdis.models.segmentation.prediction import (
    LabelRule,
    WindowScores,
    class_probabilities,
    full_size_scores,
    labels_from_probabilities,
    predict_labels,
    queries_within,
    stream_argmax,
)
from mmclipdis.models.segmentation.windows import Windows, one_window, slide_windows

labels_of = partial(predict_labels, class_chunk=32)


def naive_full_size(scores: WindowScores, out_size, activation=None) -> torch.Tensor:
    """Upsample, activate, unpad, pad to the canvas, average, mix, resize; one window at a time."""
    left, right, top, bottom = scores.padding
    (height, width), (full_h, full_w) = scores.windows.crop, scores.windows.size

    def up(maps: torch.Tensor, size) -> torch.Tensor:
        return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]

    total = torch.zeros(scores.num_queries, full_h, full_w, dtype=scores.maps.dtype)
    count = torch.zeros(full_h, full_w, dtype=scores.maps.dtype)
    for maps, (y, x) in zip(scores.maps, scores.windows.starts, strict=True):
        window = up(maps, (height + top + bottom, width + left + right))
        window = activation(window) if activation else window
        window = window[:, top : top + height, left : left + width]
        total += F.pad(window, (x, full_w - x - width, y, full_h - y - height))
        count[y : y + height, x : x + width] += 1
    canvas = total / count
    if scores.overview is not None:
        overview = up(scores.overview, (height, width))
        overview = activation(overview) if activation else overview
        canvas = (canvas + up(overview, (full_h, full_w))) / 2
    return up(canvas, out_size)


def make_scores(seed: int = 0, queries: int = 7, **kwargs) -> WindowScores:
    generator = torch.Generator().manual_seed(seed)
    windows = slide_windows((30, 45), (20, 18), (10, 9))
    maps = torch.randn(len(windows), queries, 5, 6, generator=generator, dtype=torch.float64)
    return WindowScores(maps, windows, **kwargs)


@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (1, 2, 3, 4)])
@pytest.mark.parametrize("activation", [None, torch.sigmoid])
@pytest.mark.parametrize("overview", [False, True])
@pytest.mark.parametrize("out_size", [(30, 45), (61, 17)])
def test_full_size_equals_the_plain_steps(padding, activation, overview, out_size) -> None:
    extra = torch.randn(7, 4, 4, dtype=torch.float64) if overview else None
    scores = make_scores(padding=padding, overview=extra)
    torch.testing.assert_close(
        full_size_scores(scores, out_size, activation),
        naive_full_size(scores, out_size, activation),
        rtol=0,
        atol=1e-12,
    )


def test_windows_in_any_order_give_the_same_scores() -> None:
    """Off the grid order the two matrix products do not apply; the plain path must take over."""
    scores = make_scores()
    order = list(reversed(range(len(scores.windows))))
    windows = scores.windows
    shuffled = Windows(windows.size, windows.crop, tuple(windows.starts[i] for i in order))
    torch.testing.assert_close(
        full_size_scores(WindowScores(scores.maps[order], shuffled), (50, 50)),
        full_size_scores(scores, (50, 50)),
    )


def test_low_matmul_precision_does_not_reach_the_scores() -> None:
    scores = make_scores()
    want = full_size_scores(scores, (31, 44))
    torch.set_float32_matmul_precision("high")
    try:
        torch.testing.assert_close(full_size_scores(scores, (31, 44)), want)
    finally:
        torch.set_float32_matmul_precision("highest")


def test_precision_set_by_the_new_interface_does_not_stop_the_scores() -> None:
    scores = make_scores()
    want = full_size_scores(scores, (31, 44))
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        torch.testing.assert_close(full_size_scores(scores, (31, 44)), want)
    finally:
        torch.backends.cuda.matmul.fp32_precision = "none"
    assert torch.get_float32_matmul_precision() == "highest"


def test_autocast_does_not_reach_the_scores() -> None:
    scores = make_scores()
    scores = WindowScores(scores.maps.float(), scores.windows)
    want = full_size_scores(scores, (31, 44))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(full_size_scores(scores, (31, 44)), want)


@pytest.mark.parametrize("activation", [None, torch.sigmoid])
@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_chunked_equals_unchunked(activation, chunk: int) -> None:
    scores = make_scores(overview=torch.randn(7, 4, 4, dtype=torch.float64))
    full = full_size_scores(scores, (40, 33), activation)
    running = stream_argmax(
        scores, (40, 33), activation=activation, class_chunk=chunk, with_lse=True
    )
    assert torch.equal(running.index, full.argmax(dim=0))
    torch.testing.assert_close(running.probability, full.softmax(dim=0).amax(dim=0))


@pytest.mark.parametrize(
    ("out_size", "budget_mb", "want"),
    [
        ((10, 10), 4 * 200e-6, 1),  # four windows of 8 x 8: 256 values a query
        ((10, 10), 4 * 600e-6, 2),
        ((40, 30), 4 * 5000e-6, 4),  # 1200 values a query at the size of the result
        ((10, 10), float("inf"), 7),
    ],
)
def test_a_budget_bounds_the_largest_map(out_size, budget_mb, want) -> None:
    windows = slide_windows(12, 8, 4)
    scores = WindowScores(torch.zeros(len(windows), 7, 2, 2), windows)
    assert len(windows) == 4
    assert queries_within(budget_mb, scores, out_size) == want


COSINES = torch.tensor([0.20, 0.24, 0.25, 0.22])
GOLDEN_PROBABILITIES = torch.tensor([0.04294, 0.31727, 0.52308, 0.11672])


def golden_scores() -> WindowScores:
    return WindowScores((50 * COSINES).view(1, 4, 1, 1), one_window((1, 1)))


def rule(query_to_class: list[int], **kwargs) -> LabelRule:
    kwargs = {"background_index": 0, **kwargs}
    return LabelRule(torch.tensor(query_to_class), max(query_to_class) + 1, **kwargs)


def test_golden_probabilities_and_labels() -> None:
    logits = full_size_scores(golden_scores(), (1, 1))
    torch.testing.assert_close(
        logits.softmax(dim=0).flatten(), GOLDEN_PROBABILITIES, rtol=0, atol=5e-6
    )
    synonyms = rule([0, 1, 1, 2])
    torch.testing.assert_close(
        class_probabilities(logits, synonyms).flatten(),
        GOLDEN_PROBABILITIES[[0, 2, 3]],
        rtol=0,
        atol=5e-6,
    )
    assert labels_of(golden_scores(), (1, 1), synonyms).item() == 1
    thresholded = rule([0, 1, 1, 2], prob_thd=0.53)
    assert labels_of(golden_scores(), (1, 1), thresholded).item() == 0


def test_threshold_is_strict() -> None:
    """A probability that equals the threshold keeps its label; the next number above does not."""
    scores = WindowScores(torch.tensor([0.0, 5.0, 5.0]).view(1, 3, 1, 1), one_window((1, 1)))
    running = stream_argmax(scores, (1, 1), class_chunk=2, with_lse=True)
    best = running.probability.item()
    above = math.nextafter(best, 1.0) + 1e-7
    assert labels_of(scores, (1, 1), rule([0, 1, 2], prob_thd=best)).item() == 1
    assert labels_of(scores, (1, 1), rule([0, 1, 2], prob_thd=above)).item() == 0


def test_without_threshold_and_synonyms_the_best_cosine_wins() -> None:
    scores = make_scores()
    want = full_size_scores(scores, (21, 22)).argmax(dim=0)
    assert torch.equal(labels_of(scores, (21, 22), rule(list(range(7)))), want)


@given(
    seed=st.integers(0, 500),
    prob_thd=st.sampled_from([0.0, 0.2, 0.35]),
    area_thd=st.sampled_from([None, 0.1, 0.3]),
    background=st.sampled_from([0, 2]),
    chunk=st.integers(1, 8),
    overview=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_streamed_labels_equal_those_from_full_probabilities(
    seed, prob_thd, area_thd, background, chunk, overview
) -> None:
    extra = torch.randn(7, 4, 4, dtype=torch.float64, generator=torch.manual_seed(seed))
    scores = make_scores(seed, overview=extra if overview else None)
    label_rule = rule(
        [0, 0, 1, 2, 2, 3, 4],
        prob_thd=prob_thd,
        area_thd=area_thd,
        background_index=background,
    )
    probabilities = class_probabilities(full_size_scores(scores, (19, 23)), label_rule)
    want = labels_from_probabilities(probabilities, label_rule)
    got = predict_labels(scores, (19, 23), label_rule, class_chunk=chunk)
    assert torch.equal(got, want)


def test_area_threshold_drops_rare_classes_and_never_the_background() -> None:
    """Foreground: 19 pixels of class 1, one of class 2 (5 %); background: one pixel."""
    logits = torch.zeros(1, 3, 3, 7)
    logits[0, 1] = 1.0
    logits[0, 2, 0, 0], logits[0, 0, 0, 1] = 2.0, 3.0
    scores = WindowScores(logits, one_window((3, 7)))
    kept = labels_of(scores, (3, 7), rule([0, 1, 2], area_thd=0.04))
    dropped = labels_of(scores, (3, 7), rule([0, 1, 2], area_thd=0.1))
    assert (kept[0, 0].item(), kept[0, 1].item()) == (2, 0)
    assert (dropped[0, 0].item(), dropped[0, 1].item()) == (1, 0)


def test_a_class_of_exactly_the_area_threshold_is_dropped() -> None:
    """SCLIP keeps what is above the threshold: one of four pixels is not above a quarter."""
    logits = torch.zeros(1, 3, 1, 4)
    logits[0, 1], logits[0, 2, 0, 0] = 1.0, 2.0
    scores = WindowScores(logits, one_window((1, 4)))
    for area_thd, first in ((0.25, 1), (0.2499, 2)):
        labels = labels_of(scores, (1, 4), rule([0, 1, 2], area_thd=area_thd))
        assert labels.tolist() == [[first, 1, 1, 1]]


def test_class_permutation_permutes_the_labels() -> None:
    scores = make_scores()
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    labels = labels_of(scores, (25, 25), rule(list(range(7))))
    permuted = WindowScores(scores.maps[:, order], scores.windows)
    assert torch.equal(order[labels_of(permuted, (25, 25), rule(list(range(7))))], labels)


def test_bad_chunk_is_refused() -> None:
    with pytest.raises(ValueError, match="class_chunk"):
        stream_argmax(make_scores(), (5, 5), class_chunk=0)


def test_as_many_names_as_classes_need_not_be_one_a_class() -> None:
    """Two names of one class and none of another: the background that is only a threshold."""
    rule = LabelRule(torch.tensor([1, 1, 2]), 3)
    scores = torch.tensor([0.0, 2.0, 1.0]).view(3, 1, 1)
    softmax = scores.softmax(0).flatten()
    got = class_probabilities(scores, rule).flatten()
    assert torch.equal(got, torch.stack([torch.tensor(0.0), softmax[1], softmax[2]]))
    assert int(labels_from_probabilities(class_probabilities(scores, rule), rule)) == 1


@pytest.mark.parametrize("prob_thd", [0.0, 0.55])
@pytest.mark.parametrize("area_thd", [None, 0.1])
def test_labels_after_an_activation_equal_those_from_stored_probabilities(
    prob_thd: float, area_thd: float | None
) -> None:
    """The scores are probabilities already: no softmax before the threshold."""
    scores = make_scores(overview=torch.randn(7, 4, 4, dtype=torch.float64))
    classes = torch.tensor([0, 1, 1, 2, 3, 4, 4])
    label_rule = LabelRule(classes, 5, prob_thd, 2, area_thd, activation=torch.sigmoid)
    full = full_size_scores(scores, (19, 23), torch.sigmoid)
    probabilities = class_probabilities(full, label_rule)
    naive = torch.stack([full[classes == c].amax(0) for c in range(5)])
    assert torch.equal(probabilities, naive)
    got = predict_labels(scores, (19, 23), label_rule, class_chunk=2)
    assert torch.equal(got, labels_from_probabilities(probabilities, label_rule))
    assert ((naive.amax(0) < prob_thd) <= (got == 2)).all()


def straight(grid: torch.Tensor, size, padding, out_size) -> torch.Tensor:
    """One map (h, w) of a padded image, sampled at every pixel of the photo by itself."""
    left, right, top, bottom = padding
    found = torch.empty(out_size, dtype=grid.dtype)
    for y in range(out_size[0]):
        for x in range(out_size[1]):
            v = ((y + 0.5) * size[0] / out_size[0] + top) / (size[0] + top + bottom)
            u = ((x + 0.5) * size[1] / out_size[1] + left) / (size[1] + left + right)
            row = min(max(v * grid.shape[0] - 0.5, 0), grid.shape[0] - 1)
            column = min(max(u * grid.shape[1] - 0.5, 0), grid.shape[1] - 1)
            above, before = int(row), int(column)
            below, after = min(above + 1, grid.shape[0] - 1), min(before + 1, grid.shape[1] - 1)
            a, b = row - above, column - before
            found[y, x] = (1 - a) * ((1 - b) * grid[above, before] + b * grid[above, after]) + (
                a * ((1 - b) * grid[below, before] + b * grid[below, after])
            )
    return found


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("out_size", [(20, 9), (7, 30), (1, 1), (13, 22)], ids=str)
@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (1, 1, 1, 2), (0, 3, 2, 0)], ids=str)
def test_a_whole_image_is_sampled_once(monkeypatch, exact, out_size, padding) -> None:
    torch.manual_seed(0)
    maps, size = torch.randn(1, 2, 4, 6, dtype=torch.float64), (13, 22)
    if not exact:  # TF32 products: the way without them
        monkeypatch.setattr(prediction, "fits_two_products", lambda _: False)
    scores = WindowScores(maps, one_window(size), padding, is_whole=True)
    got = full_size_scores(scores, out_size)
    expected = torch.stack([straight(grid, size, padding, out_size) for grid in maps[0]])
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    assert scores.select(slice(0, 1)).is_whole
