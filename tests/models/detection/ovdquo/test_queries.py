"""What queries ask for: golden values, loops, order."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("mmdet")

from mmclipdis.models.detection.ovdquo.queries import (
    Encoded,
    best_classes,
    by_class,
    class_scores,
    cosines,
    overlaps_unknown,
    rois_of,
)
from mmclipdis.models.detection.ovdquo.targets import Targets


def naive_classes(similarities, temperature, novel, factor):
    """Softmax over the classes and a constant -1, the novel ones' probabilities multiplied."""
    best = []
    for row in similarities.double().tolist():
        powers = [math.exp(temperature * value) for value in [*row, -1.0]]
        shares = [power / sum(powers) for power in powers][:-1]
        shares = [p * factor if new else p for p, new in zip(shares, novel)]
        best.append(max(range(len(shares)), key=shares.__getitem__))
    return best


def test_the_class_of_a_query_is_that_of_the_golden_case():
    similar, novel = torch.tensor([[0.25, 0.245]]), torch.tensor([False, True])
    constant = torch.tensor([[-1.0]])
    shares = (100 * torch.cat([similar, constant], 1)).softmax(1)[0, :-1]
    torch.testing.assert_close(shares, torch.tensor([0.622459, 0.377541]), atol=1e-6, rtol=0)
    assert float(shares[1] * 3) == pytest.approx(1.132622, abs=2e-6)
    assert best_classes(similar, 100.0).tolist() == [0]
    assert best_classes(similar, 100.0, novel, 3.0).tolist() == [1]
    # 0.622459 / 0.377541 is what the factor has to beat
    assert best_classes(similar, 100.0, novel, 1.6487).tolist() == [0]
    assert best_classes(similar, 100.0, novel, 1.6488).tolist() == [1]


@given(st.integers(0, 10**6), st.integers(1, 7), st.sampled_from([1.0, 3.0, 8.0, 0.5]))
@settings(max_examples=40, deadline=None)
def test_the_class_of_a_query_is_that_of_the_softmax(seed, count, factor):
    generator = torch.Generator().manual_seed(seed)
    similar = 0.2 * torch.randn(9, count, generator=generator, dtype=torch.double)
    novel = torch.rand(count, generator=generator) < 0.5
    expected = naive_classes(similar, 50.0, novel.tolist(), factor)
    assert best_classes(similar, 50.0, novel, factor).tolist() == expected


def test_classes_in_another_order_are_asked_for_by_the_same_queries():
    similar, order = torch.randn(12, 5), torch.tensor([3, 0, 4, 1, 2])
    novel = torch.tensor([False, True, False, True, False])
    found = best_classes(similar, 1.0, novel, 3.0)
    other = best_classes(similar[:, order], 1.0, novel[order], 3.0)
    assert torch.equal(order[other], found)


def test_scores_are_those_of_the_golden_case():
    similar, half = torch.tensor([[0.25, 0.20]]), torch.tensor([0.5])
    for temperature, expected in ((100.0, (0.496654, 0.003346)), (50.0, (0.462069, 0.037929))):
        found = class_scores(similar, temperature, half)
        assert found.shape == (1, 3)  # and what is no class
        torch.testing.assert_close(found[0, :2], torch.tensor(expected), atol=1e-6, rtol=0)
        assert float(found.sum()) == pytest.approx(0.5)


def test_scores_are_those_of_loops():
    similar, objectness = torch.randn(6, 4).clamp(-1, 1), torch.rand(6)
    found = class_scores(similar, 14.0, objectness)
    for row, sure, scores in zip(similar.tolist(), objectness.tolist(), found.tolist()):
        powers = [math.exp(14.0 * value) for value in row]
        expected = [sure * power / (sum(powers) + 1) for power in powers]
        assert scores[:-1] == pytest.approx(expected, rel=1e-5)


def test_of_equal_classes_boxes_keep_their_order():
    classes = torch.tensor([[2, 0, 1, 0, 2], [1, 1, 0, 1, 0]])
    starts = torch.arange(40.0).view(2, 5, 4)
    sorted_classes, moved = by_class(classes, starts)
    assert sorted_classes.tolist() == [[0, 0, 1, 2, 2], [0, 0, 1, 1, 1]]
    assert moved[0].tolist() == starts[0, [1, 3, 2, 0, 4]].tolist()
    assert moved[1].tolist() == starts[1, [2, 4, 0, 1, 3]].tolist()


def naive_iou(one, other):
    (ax, ay, aw, ah), (bx, by, bw, bh) = one, other
    width = min(ax + aw / 2, bx + bw / 2) - max(ax - aw / 2, bx - bw / 2)
    height = min(ay + ah / 2, by + bh / 2) - max(ay - ah / 2, by - bh / 2)
    both = max(width, 0) * max(height, 0)
    return both / (aw * ah + bw * bh - both)


def targets(boxes, labels):
    weights = [torch.ones(len(each)) for each in labels]
    return Targets(boxes, [torch.tensor(each).long() for each in labels], weights, torch.arange(3))


@pytest.mark.parametrize("threshold", [0.5, 0.1])
def test_queries_on_a_pseudo_box_of_their_image_ask_for_the_wildcard(threshold):
    generator = torch.Generator().manual_seed(5)
    boxes = 0.3 + 0.3 * torch.rand(3, 15, 4, generator=generator)
    truth = [0.3 + 0.3 * torch.rand(n, 4, generator=generator) for n in (3, 2, 4)]
    labels = [[0, -1, 2], [1, 0], [-1, -1, -1, 2]]
    found = overlaps_unknown(boxes, targets(truth, labels), threshold)
    expected = [
        [
            any(
                naive_iou(query, box) > threshold
                for box, label in zip(truth[image].tolist(), labels[image])
                if label == -1
            )
            for query in boxes[image].tolist()
        ]
        for image in range(3)
    ]
    assert found.tolist() == expected
    assert found.any() and not found.all() and not found[1].any()


def test_without_pseudo_boxes_nothing_asks_for_the_wildcard():
    boxes = torch.rand(2, 4, 4)
    for truth, labels in (
        ([boxes[0], boxes[1]], [[0] * 4, [1] * 4]),
        ([boxes[0, :0], boxes[1, :0]], [[], []]),
    ):
        assert not overlaps_unknown(boxes, targets(truth, labels), 0.5).any()


def test_regions_are_pixels_of_the_photo_that_a_query_belongs_to():
    boxes = torch.tensor([[[0.5, 0.5, 1.0, 1.0], [0.25, 0.5, 0.5, 0.2]]]).repeat(2, 1, 1)
    sizes = torch.tensor([[100.0, 50, 100, 50], [64.0, 64, 64, 64]])
    expected = [[0, 0, 0, 100, 50], [0, 0, 20, 50, 30], [1, 0, 0, 64, 64], [1, 0, 25.6, 32, 38.4]]
    torch.testing.assert_close(rois_of(boxes, sizes), torch.tensor(expected))


@pytest.mark.parametrize("mask", [None, torch.rand(3, 8) < 0.5])
def test_a_part_of_a_batch_is_that_of_its_images(mask):
    facts = dict(memory_mask=mask, valid_ratios=torch.rand(3, 2, 2), spatial_shapes=torch.ones(2))
    given = [torch.rand(3, 8, 5), facts, *(torch.rand(3, 4, *more) for more in ((), (4,), (4,)))]
    part = Encoded(*given).of([2, 0])
    assert torch.equal(part.memory, given[0][[2, 0]])
    assert torch.equal(part.facts["valid_ratios"], facts["valid_ratios"][[2, 0]])
    assert part.facts["spatial_shapes"] is facts["spatial_shapes"]
    assert (mask is None and part.facts["memory_mask"] is None) or torch.equal(
        part.facts["memory_mask"], mask[[2, 0]]
    )
    for name, whole in zip(("logits", "boxes", "starts"), given[2:]):
        assert torch.equal(getattr(part, name), whole[[2, 0]])


def test_cosines_stay_in_float32_under_autocast():
    regions, text = torch.randn(5, 16), torch.randn(4, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cosines(regions.bfloat16(), text)
    assert found.dtype == torch.float32
    assert torch.equal(found, regions.bfloat16().float() @ text.T)
