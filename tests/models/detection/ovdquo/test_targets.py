"""What a batch is trained on: classes of an iteration, boxes, what is left out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("mmdet")

from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from mmclipdis.models.detection.ovdquo.targets import (
    image_sizes,
    make_targets,
    sample_classes,
    trained_classes,
)
from tests.faults.endings import raises

CPU = torch.device("cpu")


def sample(labels, boxes=None, shape=(40, 80), **more):
    boxes = torch.rand(len(labels), 4) if boxes is None else boxes
    truth = InstanceData(bboxes=boxes, labels=torch.tensor(labels).long(), **more)
    found = DetDataSample(metainfo=dict(img_shape=shape))
    found.gt_instances = truth
    return found


@given(
    st.integers(0, 10**6),
    st.lists(st.integers(-1, 11), max_size=15),
    st.lists(st.booleans(), min_size=12, max_size=12),
    st.integers(1, 14),
)
@settings(max_examples=80, deadline=None)
def test_an_iteration_has_the_classes_of_the_batch_and_random_base_ones(seed, labels, base, most):
    torch.manual_seed(seed)
    trained = torch.tensor(base)
    found = sample_classes(torch.tensor(labels).long(), trained, most).tolist()
    present = {label for label in labels if label >= 0 and base[label]}
    assert found == sorted(set(found))
    assert all(base[label] for label in found)
    assert len(found) == min(most, sum(base))
    if len(present) <= most:
        assert present <= set(found)
    else:
        assert set(found) <= present


def test_every_base_class_is_drawn_at_times_and_none_of_the_novel_ones():
    torch.manual_seed(0)
    trained = torch.tensor([True, False, True, True, True, False])
    drawn = [tuple(sample_classes(torch.tensor([2, 2]), trained, 3).tolist()) for _ in range(60)]
    assert {label for each in drawn for label in each} == {0, 2, 3, 4}
    assert len(set(drawn)) == 3  # two of the other three
    many = [tuple(sample_classes(torch.tensor([0, 2, 3]), trained, 2).tolist()) for _ in range(60)]
    assert set(many) == {(0, 2), (0, 3), (2, 3)}


def test_where_there_is_no_choice_no_random_number_is_drawn():
    before = torch.get_rng_state()
    sample_classes(torch.tensor([1]), torch.ones(4, dtype=torch.bool), 4)
    sample_classes(torch.tensor([1, 2]), torch.ones(4, dtype=torch.bool), 2)
    assert torch.equal(torch.get_rng_state(), before)
    sample_classes(torch.tensor([1]), torch.ones(4, dtype=torch.bool), 2)
    assert not torch.equal(torch.get_rng_state(), before)


def test_targets_are_those_of_loops():
    torch.manual_seed(3)
    corner = torch.rand(5, 2) * 20
    boxes = torch.cat([corner, corner + 5 + torch.rand(5, 2) * 10], 1)
    given_labels = [[4, -1, 0], [2, 4]]
    samples = [
        sample(given_labels[0], boxes[:3], (40, 80), weights=torch.tensor([1.0, 0.3, 1.0])),
        sample(given_labels[1], HorizontalBoxes(boxes[3:]), (64, 32)),
    ]
    trained = torch.tensor([True, False, True, False, True, True])
    found = make_targets(samples, trained, 4, CPU)
    assert found.sampled.tolist() == [0, 2, 4, 5] and found.wildcard == 4 and found.dropped == 0
    assert [each.tolist() for each in found.labels] == [[2, -1, 0], [1, 2]]
    torch.testing.assert_close(found.weights[0], torch.tensor([1.0, 0.3, 1.0]))
    assert found.weights[1].tolist() == [1, 1]
    for image, (height, width) in enumerate(((40, 80), (64, 32))):
        own = boxes[:3] if image == 0 else boxes[3:]
        for (x0, y0, x1, y1), box in zip(own.tolist(), found.boxes[image].tolist(), strict=True):
            middle = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height)
            assert box == pytest.approx((*middle, (x1 - x0) / width, (y1 - y0) / height))


def test_boxes_of_classes_that_are_left_out_are_dropped_and_counted():
    torch.manual_seed(0)
    labels = [[0, 1, -1, 0], [2, 3, -1]]
    samples = [sample(each, weights=torch.rand(len(each))) for each in labels]
    found = make_targets(samples, torch.ones(5, dtype=torch.bool), 2, CPU)
    kept = found.sampled.tolist()
    place = {label: number for number, label in enumerate(kept)} | {-1: -1}
    assert len(kept) == 2
    dropped = 0
    for image, own in enumerate(labels):
        rows = [row for row, label in enumerate(own) if label in place]
        dropped += len(own) - len(rows)
        assert found.labels[image].tolist() == [place[own[row]] for row in rows]
        assert torch.equal(found.weights[image], samples[image].gt_instances.weights[rows])
    assert found.dropped == dropped > 0


def test_boxes_of_novel_classes_are_left_out():
    trained = torch.tensor([True, False, True])
    found = make_targets([sample([0, 1, -1, 1])], trained, 3, CPU)
    assert found.sampled.tolist() == [0, 2]
    assert found.labels[0].tolist() == [0, -1]
    assert found.dropped == 2


def test_a_batch_without_boxes_has_empty_targets():
    found = make_targets([sample([]), sample([])], torch.ones(3, dtype=torch.bool), 3, CPU)
    assert [len(each) for each in found.boxes] == [0, 0] and found.dropped == 0
    assert found.sampled.tolist() == [0, 1, 2]


@pytest.mark.parametrize("label", [3, -2, 7])
def test_a_label_that_is_no_class_is_named(label):
    line = f"a box has label {label}, and the vocabulary has 3 classes: .* those of the model"
    raises(line, make_targets, [sample([0, label])], torch.ones(3, dtype=torch.bool), 3, CPU)


@pytest.mark.parametrize("weight", [-0.5, 1.5, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_named(weight):
    some = sample([0, -1], weights=torch.tensor([1.0, weight]))
    line = rf"a box has the weight {weight} \(1 of 2 of the batch\), and weights say from 0 to 1"
    raises(line, make_targets, [some], torch.ones(3, dtype=torch.bool), 3, CPU)


def test_without_a_base_class_there_is_nothing_to_learn():
    assert trained_classes([True, False]).tolist() == [False, True]
    raises("all 2 classes are novel, so that none may be learned", trained_classes, [True, True])


def test_sizes_are_those_of_the_photos_without_padding():
    sizes = image_sizes([sample([], shape=(30, 50, 3)), sample([], shape=(8, 9))], CPU)
    assert sizes.tolist() == [[50, 30, 50, 30], [9, 8, 9, 8]]
