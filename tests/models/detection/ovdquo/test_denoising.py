"""Denoising queries: golden groups, where copies stand, noise, texts, padding, random numbers."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from mmclipdis.models.detection.ovdquo.denoising import TextDenoising
from tests.faults.endings import raises

DIM, MATCHING, MAX_CLASSES = 8, 5, 6


def denoising(**options):
    torch.manual_seed(0)
    return TextDenoising(DIM, MATCHING, MAX_CLASSES, **options)


def inner_boxes(count, generator):
    """Corners of boxes so far inside of the image that no noise reaches its border."""
    centre = 0.4 + 0.2 * torch.rand(count, 2, generator=generator)
    size = 0.05 + 0.1 * torch.rand(count, 2, generator=generator)
    return torch.cat([centre - size / 2, centre + size / 2], dim=1)


def batch(*labels, seed=0):
    """Boxes, labels and weights of images."""
    generator = torch.Generator().manual_seed(seed)
    return (
        [inner_boxes(len(each), generator) for each in labels],
        [torch.tensor(each, dtype=torch.long) for each in labels],
        [torch.rand(len(each), generator=generator) for each in labels],
    )


def texts(classes=4, seed=1):
    return torch.randn(classes + 1, DIM, generator=torch.Generator().manual_seed(seed))


def decoded(references):
    """Corners of boxes that went through the inverse sigmoid."""
    centre, size = references.sigmoid().split(2, -1)
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


@pytest.mark.parametrize(
    ("counts", "groups"),
    [
        ((7, 2, 0), 14),
        ((1,), 100),
        ((33,), 3),
        ((50, 51), 1),
        ((100,), 1),
        ((101,), 1),
        ((250,), 1),
    ],
)
def test_golden_number_of_groups(counts, groups):
    made = denoising()(*batch(*([-1] * count for count in counts)), texts())
    assert made.groups == groups
    assert made.content.shape[1] == 2 * groups * max(counts)
    assert made.valid.sum(1).tolist() == [2 * groups * count for count in counts]
    assert made.positive.sum(1).tolist() == [groups * count for count in counts]


def test_golden_196_queries_for_7_pseudo_boxes():
    assert denoising()(*batch([-1] * 7, [-1, 0]), texts()).content.shape == (2, 196, DIM)


@pytest.mark.parametrize(("queries", "groups"), [(50, 16), (49, 98), (20, 40), (1, 2)])
def test_few_queries_are_a_number_of_groups(queries, groups):
    assert denoising(num_queries=queries)(*batch([-1] * 3), texts()).groups == groups


def test_without_pseudo_boxes_it_is_exactly_one_real_box():
    boxes, labels, weights = batch([], [2, 1, 3], [0, 0])
    made = denoising(label_noise=0)(boxes, labels, weights, texts())
    assert made.groups == 100
    assert made.valid.sum(1).tolist() == [0, 200, 0]
    assert made.weight[1].tolist() == [weights[1][0].item()] * 200
    table, text = denoising().label_embedding.weight, texts()
    torch.testing.assert_close(made.content[1, 0], table[2] + text[-1])
    torch.testing.assert_close(made.content[1, 1], table[2] + text[2])
    centre = (boxes[1][0, :2] + boxes[1][0, 2:]) / 2
    torch.testing.assert_close(
        made.references[1].sigmoid()[::2, :2].mean(0), centre, atol=0.01, rtol=0
    )


def test_one_pseudo_box_in_the_batch_leaves_real_ones_out():
    made = denoising()(*batch([2, 1], [0, -1, 3]), texts())
    assert made.valid.sum(1).tolist() == [0, 200]


@pytest.mark.parametrize("labels", [([],), ([], [])])
def test_a_batch_without_boxes_makes_none(labels):
    module = denoising()
    assert module(*batch(*labels), texts()) is None
    zero = module.zero()
    assert zero.item() == 0
    zero.backward()
    assert module.label_embedding.weight.grad.tolist() == [[0.0] * DIM] * (MAX_CLASSES + 1)


def test_without_weights_they_are_1():
    boxes, labels, _ = batch([-1, 0, -1], [-1])
    made = denoising()(boxes, labels, None, texts())
    assert torch.equal(made.weight, made.valid.float())


def test_pseudo_boxes_may_have_the_label_of_the_wildcard():
    boxes, labels, weights = batch([-1, 0, -1], [3, -1])
    named = [torch.where(each == -1, 4, each) for each in labels]
    module = denoising()
    torch.manual_seed(3)
    made = module(boxes, labels, weights, texts())
    torch.manual_seed(3)
    same = module(boxes, named, weights, texts())
    assert torch.equal(made.content, same.content)
    assert torch.equal(made.references, same.references)
    assert torch.equal(made.valid, same.valid)


def test_every_copy_stands_where_a_loop_puts_it():
    boxes, labels, weights = batch([-1, 2, -1, -1], [0], [-1])
    module = denoising(label_noise=0, num_queries=60)
    text, table = texts(), module.label_embedding.weight
    made = module(boxes, labels, weights, text)
    assert made.groups == 20
    seen = 0
    for image in range(3):
        rows = (labels[image] == -1).nonzero()[:, 0].tolist()
        for group in range(20):
            for sign, positive in enumerate([True, False]):
                for place, row in enumerate(rows):
                    query = (2 * group + sign) * 3 + place
                    assert bool(made.valid[image, query])
                    assert bool(made.positive[image, query]) == positive
                    assert made.weight[image, query] == weights[image][row]
                    torch.testing.assert_close(made.content[image, query], table[-1] + text[-1])
                    box = boxes[image][row]
                    moved = (decoded(made.references[image, query]) - box).abs()
                    reach = (box[2:] - box[:2]).repeat(2) / 2
                    assert bool((moved <= (1 if positive else 2) * reach + 1e-3).all())
                    seen += 1
    assert seen == made.valid.sum()


@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_corners_move_by_less_than_half_the_size_or_by_more(scale):
    boxes, labels, weights = batch([-1])
    made = denoising(num_queries=4000, box_noise_scale=scale)(boxes, labels, weights, texts())
    corners = decoded(made.references[0].double())
    half = (boxes[0][0, 2:] - boxes[0][0, :2]).repeat(2) / 2
    share = (corners - boxes[0][0]).abs() / half / scale
    near = share[made.positive[0]]
    assert 0.99 < near.max() < 1.001
    assert near.mean().item() == pytest.approx(0.5, abs=0.02)
    # a box that was turned inside out lost its size, and with it what its corners were
    whole = (made.references[0].sigmoid()[:, 2:] > 2e-3).all(1)
    far = share[~made.positive[0] & whole]
    assert len(far) > 500
    assert 0.999 < far.min() < 1.01
    assert 1.99 < far.max() < 2.001


def test_a_quarter_of_the_labels_is_replaced_by_any_class_or_the_wildcard():
    module = denoising()
    with torch.no_grad():  # the content of a query is the row it has in the table
        module.label_embedding.weight.copy_(torch.arange(7.0)[:, None].expand(7, DIM))
        made = module(*batch(*[[-1]] * 200), torch.zeros(5, DIM))  # 40000 queries
        rows = made.content[..., 0].long()
    share = torch.bincount(rows.flatten(), minlength=7) / rows.numel()
    # 4 classes and the wildcard, whose row is the last one, however few classes are there
    expected = [0.05, 0.05, 0.05, 0.05, 0.0, 0.0, 0.8]
    assert share.tolist() == pytest.approx(expected, abs=0.01)
    assert bool((share[4:6] == 0).all())
    for copies in (made.positive, ~made.positive):
        assert (rows[copies] == 6).float().mean().item() == pytest.approx(0.8, abs=0.015)


def test_real_labels_are_replaced_as_well():
    module = denoising(num_queries=2000)
    with torch.no_grad():
        module.label_embedding.weight.copy_(torch.arange(7.0)[:, None].expand(7, DIM))
        made = module(*batch([2, 0]), torch.zeros(5, DIM))
    share = torch.bincount(made.content[0, :, 0].long(), minlength=7) / made.content.shape[1]
    expected = [0.05, 0.05, 0.8, 0.05, 0.0, 0.0, 0.05]
    assert share.tolist() == pytest.approx(expected, abs=0.02)


def test_positive_queries_carry_the_wildcard_and_negative_ones_their_noisy_label():
    module = denoising(label_noise=1.0, num_queries=400)
    text = torch.eye(5, DIM)
    with torch.no_grad():  # columns 0 to 4 show the text, the last one the row of the table
        module.label_embedding.weight.zero_()
        module.label_embedding.weight[:, -1] = torch.arange(7.0)
        made = module(*batch([-1, -1]), text)
    text_of, row_of = made.content[0, :, :5].argmax(1), made.content[0, :, -1].long()
    assert text_of[made.positive[0]].unique().tolist() == [4]
    assert row_of[made.positive[0]].unique().tolist() == [0, 1, 2, 3, 6]
    negative = ~made.positive[0]
    assert text_of[negative].unique().tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(row_of[negative], torch.where(text_of == 4, 6, text_of)[negative])


def test_padding_is_zero_and_gets_no_gradient():
    module, text = denoising(), texts().requires_grad_()
    made = module(*batch([-1] * 4, [-1], [1]), text)
    empty = ~made.valid
    assert int(empty.sum()) == made.valid.numel() * (0 + 3 + 4) // 12
    for values in (made.content, made.references, made.weight, made.positive):
        assert not values[empty].any()
    made.content[empty].sum().backward()
    assert not text.grad.any()
    assert not module.label_embedding.weight.grad.any()


def test_table_and_texts_learn():
    module, text = denoising(), texts().requires_grad_()
    made = module(*batch([-1] * 4, [-1]), text)
    made.content.square().sum().backward()
    assert bool((text.grad != 0).all())
    used = module.label_embedding.weight.grad.abs().sum(1) > 0
    assert used.tolist() == [True] * 4 + [False] * 2 + [True]
    assert not made.references.requires_grad


def test_groups_see_themselves_and_the_matching_queries_no_group():
    made = denoising(num_queries=60)(*batch([-1] * 20, [-1]), texts())
    assert made.groups == 3
    expected = torch.zeros(120 + MATCHING, 120 + MATCHING, dtype=torch.bool)
    for row in range(120 + MATCHING):
        for column in range(120):
            expected[row, column] = row >= 120 or row // 40 != column // 40
    assert torch.equal(made.mask, expected)


def test_the_order_of_images_plays_no_part():
    boxes, labels, weights = batch([-1, -1, 2], [1], [-1])
    module = denoising(label_noise=0)
    made = module(boxes, labels, weights, texts())
    moved = module(boxes[::-1], labels[::-1], weights[::-1], texts())
    for name in ("content", "positive", "valid", "weight"):
        assert torch.equal(getattr(moved, name).flip(0), getattr(made, name))
    assert torch.equal(moved.mask, made.mask)


def test_random_numbers_are_those_of_torch_alone():
    module, given = denoising(), batch([-1, -1, 2], [-1])
    torch.manual_seed(5)
    first, after = module(*given, texts()), torch.get_rng_state()
    random.seed(9)
    np.random.seed(9)
    torch.manual_seed(5)
    second = module(*given, texts())
    assert torch.equal(first.content, second.content)
    assert torch.equal(first.references, second.references)
    assert torch.equal(after, torch.get_rng_state())
    third = module(*given, texts())
    assert not torch.equal(first.content, third.content)
    assert not torch.equal(first.references, third.references)


def test_boxes_of_zero_size_and_on_the_border_are_finite():
    boxes = torch.tensor(
        [[0.5, 0.5, 0.5, 0.5], [0, 0, 1, 1], [0.2, 0.3, 0.2, 0.9], [0, 0, 0, 0], [1, 1, 1, 1]]
    )
    made = denoising()([boxes], [torch.full((5,), -1)], None, texts())
    assert bool(made.references.isfinite().all())
    point = made.references[0, ::5].sigmoid()
    assert point[:, :2].tolist() == [[0.5, 0.5]] * len(point)
    assert bool((point[:, 2:] < 2e-3).all())


def test_under_autocast_queries_are_fp32():
    module, text = denoising(), texts()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        projected = torch.nn.functional.linear(text, torch.eye(DIM))
        assert projected.dtype == torch.bfloat16
        made = module(*batch([-1, -1]), projected)
    assert made.content.dtype == made.references.dtype == torch.float32


def test_the_table_has_a_row_a_class_and_one_of_the_wildcard_under_the_name_of_mmdet():
    shapes = {name: tuple(values.shape) for name, values in denoising().state_dict().items()}
    assert shapes == {"label_embedding.weight": (MAX_CLASSES + 1, DIM)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_queries=0), "dn_cfg.num_queries must be a whole number above 0, got 0"),
        (dict(num_queries=50.0), "dn_cfg.num_queries must be a whole number above 0, got 50.0"),
        (dict(label_noise=None), "dn_cfg.label_noise is a probability, got None"),
        (dict(box_noise_scale=float("inf")), "dn_cfg.box_noise_scale must be positive, got inf"),
        (dict(label_noise=1.5), "label_noise is a probability"),
        (dict(label_noise=-0.1), "label_noise is a probability"),
        (dict(box_noise_scale=0.0), "box_noise_scale must be positive"),
    ],
)
def test_options_outside_their_range(options, message):
    raises(message, denoising, **options)


@pytest.mark.parametrize("classes", [0, MAX_CLASSES + 1])
def test_texts_that_do_not_fit_the_table(classes):
    raises("give 1 to max_classes=6", denoising(), *batch([-1]), texts(classes))


def test_a_label_without_a_text():
    raises("label 5 of a box, for 4 classes", denoising(), *batch([5]), texts())
