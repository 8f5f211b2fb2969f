"""Matching: golden cases, an exhaustive search, mmdet's assigner, order and batches, bad input."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules.assigners import HungarianAssigner
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import InstanceData

from mmclipdis.losses.objectness import paired_giou
from mmclipdis.models.detection.ovdquo.matching import CostWeights, match
from tests.faults.endings import raises

WILDCARD = 2


def random_boxes(*shape, generator):
    """cx, cy, w, h of boxes that lie mostly in the image."""
    return torch.rand(*shape, 4, generator=generator) * torch.tensor([1, 1, 0.9, 0.9]) + 0.01


def random_batch(seed, queries=12, counts=(3, 0, 5), layers=None):
    """Logits, boxes, targets and classes of queries."""
    generator = torch.Generator().manual_seed(seed)
    lead = (len(counts),) if layers is None else (layers, len(counts))
    logits = torch.randn(*lead, queries, generator=generator)
    boxes = random_boxes(*lead, queries, generator=generator)
    targets = [
        (
            random_boxes(count, generator=generator),
            torch.randint(-1, WILDCARD, (count,), generator=generator),
        )
        for count in counts
    ]
    classes = torch.randint(0, WILDCARD + 1, (len(counts), queries), generator=generator)
    return logits, boxes, targets, classes


def pairs(matches):
    return sorted(zip(*(numbers.tolist() for numbers in matches)))


def corners(box):
    cx, cy, w, h = box
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def naive_giou(box, other):
    a, b = corners(box), corners(other)
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = box[2] * box[3] + other[2] * other[3] - width * height
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return width * height / (union + 1e-6) - (hull - union) / (hull + 1e-6)


def naive_cost(z, box, other, weights=(2, 5, 2)):
    p = 1 / (1 + math.exp(-z))
    focal = -0.25 * (1 - p) ** 2 * math.log(p) + 0.75 * p**2 * math.log(1 - p)
    l1 = sum(abs(a - b) for a, b in zip(box, other))
    return weights[0] * focal + weights[1] * l1 - weights[2] * naive_giou(box, other)


def naive_match(logits, boxes, targets, classes=None, weights=(2, 5, 2)):
    """All assignments of one image tried: pairs of query and target."""
    logits, boxes = logits.tolist(), boxes.tolist()
    others, labels = (values.tolist() for values in targets)
    labels = [WILDCARD if label == -1 else label for label in labels]
    allowed = {
        (q, t)
        for t, other in enumerate(others)
        for q in range(len(logits))
        if classes is None
        or (
            classes[q] == labels[t]
            and any(c == labels[t] and naive_giou(b, other) > 0 for c, b in zip(classes, boxes))
        )
    }
    cost = [
        [
            naive_cost(z, box, other, weights) if (q, t) in allowed else 99.0
            for t, other in enumerate(others)
        ]
        for q, (z, box) in enumerate(zip(logits, boxes))
    ]
    best = min(
        itertools.permutations(range(len(logits)), len(others)),
        key=lambda order: sum(cost[q][t] for t, q in enumerate(order)),
    )
    return sorted((q, t) for t, q in enumerate(best) if (q, t) in allowed)


def one_image(boxes, classes, target_boxes, target_classes, logits=None):
    """Pairs of query and target of a single image."""
    found = match(
        torch.zeros(1, len(boxes)) if logits is None else torch.tensor([logits]),
        torch.tensor([boxes]),
        [(torch.tensor(target_boxes), torch.tensor(target_classes))],
        torch.tensor([classes]),
        WILDCARD,
    )
    return list(zip(found.query.tolist(), found.target.tolist()))


HERE, THERE = [0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]


def test_a_target_whose_class_no_query_has_stays_unmatched():
    assert one_image([HERE, THERE], [5, 5], [HERE], [3]) == []
    assert one_image([HERE, THERE], [5, 3], [HERE, THERE], [3, 5]) == []  # nor is it touched
    assert one_image([HERE, THERE], [5, 3], [HERE, THERE], [5, 3]) == [(0, 0), (1, 1)]


def test_pseudo_boxes_match_queries_of_the_wildcard_only():
    assert one_image([HERE, HERE, HERE], [0, WILDCARD, 1], [HERE], [-1]) == [(1, 0)]
    assert one_image([HERE, HERE], [0, 1], [HERE], [-1]) == []
    # and those of the wildcard match no annotated box
    assert one_image([HERE, HERE], [WILDCARD, 0], [HERE], [1]) == []


def test_without_a_wildcard_pseudo_boxes_stay_unmatched():
    found = match(
        torch.zeros(1, 2),
        torch.tensor([[HERE, HERE]]),
        [(torch.tensor([HERE, HERE]), torch.tensor([-1, 0]))],
        torch.tensor([[0, WILDCARD]]),
    )
    assert pairs(found) == [(0, 0, 0, 1)]


def test_a_target_that_nothing_touches_takes_no_query_from_another():
    query = [0.5, 0.5, 0.2, 0.2]
    beside = [0.606, 0.5, 0.01, 0.2]  # not touched, but nearer than the one that is
    around = [0.5, 0.5, 1.0, 1.0]
    assert naive_giou(query, beside) < 0 < naive_giou(query, around)
    assert naive_cost(0, query, beside) < naive_cost(0, query, around)
    far = [0.1, 0.1, 0.1, 0.1]
    assert one_image([far, query], [0, 1], [around, beside], [1, 1]) == [(1, 0)]
    # where the image is touched by another query of the class, both are matched
    assert one_image([far, query, beside], [0, 1, 1], [around, beside], [1, 1]) == [(1, 0), (2, 1)]


def test_the_surer_of_two_equal_queries_is_matched():
    assert one_image([HERE, HERE], [1, 1], [HERE], [1], [-1.0, 2.0]) == [(1, 0)]
    assert one_image([HERE, HERE], [1, 1], [HERE], [1], [2.0, -1.0]) == [(0, 0)]


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("weights", [(2, 5, 2), (1, 0.5, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_equals_an_exhaustive_search(seed, weights, constrained):
    logits, boxes, targets, classes = random_batch(seed, queries=8, counts=(3, 4))
    found = match(
        logits, boxes, targets, classes if constrained else None, WILDCARD, CostWeights(*weights)
    )
    expected = []
    for image in range(2):
        own = classes[image].tolist() if constrained else None
        start = 3 * image
        for query, target in naive_match(logits[image], boxes[image], targets[image], own, weights):
            expected.append((0, image, query, target + start))
    assert expected
    assert pairs(found) == expected


def test_without_classes_it_is_the_matching_of_mmdet():
    logits, boxes, targets, _ = random_batch(7, queries=30, counts=(6,))
    assigner = HungarianAssigner(
        [
            dict(type="FocalLossCost", weight=2.0),
            dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
            dict(type="IoUCost", iou_mode="giou", weight=2.0),
        ]
    )
    known = assigner.assign(
        InstanceData(scores=logits[0, :, None], bboxes=100 * bbox_cxcywh_to_xyxy(boxes[0])),
        InstanceData(
            labels=torch.zeros(6, dtype=torch.long),
            bboxes=100 * bbox_cxcywh_to_xyxy(targets[0][0]),
        ),
        dict(img_shape=(100, 100)),
    )
    found = match(logits, boxes, targets)
    assert found.query.tolist() == known.gt_inds.nonzero()[:, 0].tolist()
    assert torch.equal(found.target, known.gt_inds[found.query] - 1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.lists(st.integers(0, 9), min_size=1, max_size=3))
def test_matches_are_one_to_one_of_one_class_and_as_many_as_there_can_be(seed, free, counts):
    logits, boxes, targets, classes = random_batch(seed, queries=7, counts=counts, layers=2)
    found = match(logits, boxes, targets, None if free else classes, WILDCARD)
    rows = list(zip(*(numbers.tolist() for numbers in found)))
    assert rows == sorted(rows)
    assert len({row[:3] for row in rows}) == len({(row[0], row[3]) for row in rows}) == len(rows)
    image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    assert torch.equal(image[found.target], found.batch)
    if free:
        assert len(rows) == 2 * sum(min(count, 7) for count in counts)
        return
    labels = torch.cat([each for _, each in targets])
    labels[labels == -1] = WILDCARD
    assert torch.equal(classes[found.batch, found.query], labels[found.target])
    every = torch.cat([each for each, _ in targets])
    for layer, target in itertools.product(range(2), range(len(labels))):
        own = boxes[layer, image[target]][classes[image[target]] == labels[target]]
        giou = paired_giou(bbox_cxcywh_to_xyxy(own), bbox_cxcywh_to_xyxy(every[target]))
        matched = (layer, target) in {(row[0], row[3]) for row in rows}
        if matched:
            assert bool((giou > 0).any())
        elif bool((giou > 0).any()):  # then all queries of its class have another target
            others = [row for row in rows if row[:2] == (layer, int(image[target]))]
            assert sum(labels[row[3]] == labels[target] for row in others) == len(own)


def test_layers_at_once_are_layers_one_by_one():
    logits, boxes, targets, classes = random_batch(1, layers=3)
    together = match(logits, boxes, targets, classes, WILDCARD)
    apart = [
        (layer, *rest)
        for layer in range(3)
        for _, *rest in pairs(match(logits[layer], boxes[layer], targets, classes, WILDCARD))
    ]
    assert len({layer for layer, *_ in apart}) == 3
    assert pairs(together) == apart


@pytest.mark.parametrize("constrained", [False, True])
def test_a_batch_is_its_images(constrained):
    logits, boxes, targets, classes = random_batch(2)
    together = match(logits, boxes, targets, classes if constrained else None, WILDCARD)
    starts = [0, 3, 3]
    apart = []
    for image in range(3):
        one = slice(image, image + 1)
        own = classes[one] if constrained else None
        alone = match(logits[one], boxes[one], targets[one], own, WILDCARD)
        apart += [(0, image, q, t + starts[image]) for _, _, q, t in pairs(alone)]
    assert apart
    assert pairs(together) == apart


def test_the_order_of_queries_targets_and_images_plays_no_part():
    logits, boxes, targets, classes = random_batch(3, queries=20, counts=(5, 4))
    found = match(logits, boxes, targets, classes, WILDCARD)
    queries, order = torch.randperm(20), torch.tensor([3, 0, 4, 1, 2])
    first = tuple(values[order] for values in targets[0])
    moved = match(
        logits[:, queries].flip(0),
        boxes[:, queries].flip(0),
        [targets[1], first],
        classes[:, queries].flip(0),
        WILDCARD,
    )
    back = []
    for layer, image, query, target in pairs(moved):
        number = int(order[target - 4]) if image == 1 else target + 5
        back.append((layer, 1 - image, int(queries[query]), number))
    assert back
    assert sorted(back) == pairs(found)


@pytest.mark.parametrize("classes", [None, torch.zeros(2, 5, dtype=torch.long)])
def test_no_targets(classes):
    empty = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    found = match(torch.zeros(2, 5), torch.rand(2, 5, 4), [empty, empty], classes, WILDCARD)
    for numbers in found:
        assert numbers.shape == (0,)
        assert numbers.dtype == torch.long


def test_boxes_of_zero_size():
    point, inside = [0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.4, 0.4]
    assert one_image([inside], [1], [point], [1]) == []  # its GIoU is 0
    found = match(
        torch.zeros(1, 2),
        torch.tensor([[inside, point]]),
        [(torch.tensor([point]), torch.zeros(1))],
    )
    assert pairs(found) == [(0, 0, 1, 0)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_matched_in_fp32(dtype):
    logits, boxes, targets, classes = random_batch(4, queries=60, counts=(9, 6))
    logits, boxes = logits.to(dtype), boxes.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = match(logits, boxes, targets, classes, WILDCARD)
    assert pairs(half) == pairs(match(logits.float(), boxes.float(), targets, classes, WILDCARD))


def test_predictions_that_require_a_gradient_are_matched():
    logits, boxes, targets, classes = random_batch(5)
    expected = pairs(match(logits, boxes, targets, classes, WILDCARD))
    found = match(logits.requires_grad_(), boxes.requires_grad_(), targets, classes, WILDCARD)
    assert expected
    assert pairs(found) == expected


# ---------------------------------------------------------------------------------------------
# bad input


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("counts", [(2, 2), (0, 0)])
def test_predictions_that_are_not_finite_name_the_image(value, named, counts):
    metas = [dict(img_path=f"images/{name}.jpg") for name in "ab"] if named else None
    who = "images/b.jpg" if named else "image 1 of the batch"
    for broken in range(2):
        batch = random_batch(0, counts=counts, layers=2)
        batch[broken][1, 1, 3] = value
        message = raises("the model's predictions are not finite", match, *batch, metas=metas)
        assert message.startswith(f"{who}: ")
        assert "learning rate" in message


def test_annotations_that_are_not_finite_name_the_image():
    logits, boxes, targets, _ = random_batch(0)
    targets[2][0][4, 2] = math.nan
    metas = [dict(img_path=f"images/{name}.jpg") for name in "abc"]
    message = raises("a box of the annotations", match, logits, boxes, targets, metas=metas)
    assert message.startswith("images/c.jpg: ")


@pytest.mark.parametrize("weights", [(2, 30, 2), (100, 0, 0)])
def test_weights_that_make_forbidden_pairs_cheap(weights):
    raises("must stay below 99", match, *random_batch(0), WILDCARD, weights)


@pytest.mark.parametrize(
    "weights", [(2, 5, -1), (2, 5), (2, 5, 2, 1), (2, math.nan, 2), 2.0, "abc"]
)
def test_weights_that_are_not_three_numbers(weights):
    raises("cost_weights must be three numbers from 0 on", match, *random_batch(0), 4, weights)


def test_shapes_that_do_not_fit():
    logits, boxes, targets, classes = random_batch(0)
    raises(r"logits \(B, Q\) and boxes", match, logits, boxes[:, :3], targets)
    raises(r"logits \(B, Q\) and boxes", match, logits[0], boxes[0], targets)
    raises("targets of 2 images for predictions of 3", match, logits, boxes, targets[:2])
    raises("query_classes of shape", match, logits, boxes, targets, classes[:, :4])
