"""Objectness losses and overlaps: golden values, naive loops, what must get no gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torchvision.ops import generalized_box_iou, sigmoid_focal_loss

from mmclipdis.losses.objectness import (
    focal_denoising,
    paired_giou,
    paired_iou,
    varifocal_objectness,
)

NAN = float("nan")


def zeros(*shape):
    return torch.zeros(*shape, dtype=torch.float64, requires_grad=True)


def queries(seed=0, shape=(40,)):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    iou = torch.rand(shape, generator=generator, dtype=torch.float64)
    positive = torch.rand(shape, generator=generator) < 0.4
    weight = torch.rand(shape, generator=generator, dtype=torch.float64)
    return logits, iou, positive, weight


def rows(*tensors):
    return zip(*(tensor.flatten().tolist() for tensor in tensors))


def naive_varifocal(logits, iou, positive, weight):
    losses = []
    for z, q, found, w in rows(logits, iou, positive, weight):
        p = 1 / (1 + math.exp(-z))
        if found:
            bce = -q * math.log(p) - (1 - q) * math.log(1 - p)
            losses.append(math.sqrt(w) * q * bce)
        else:
            losses.append(-0.75 * p**2 * math.log(1 - p))
    return losses


def naive_focal(logits, positive, weight):
    losses = []
    for z, found, w in rows(logits, positive, weight):
        p = 1 / (1 + math.exp(-z))
        if found:
            losses.append(-math.sqrt(w) * 0.25 * (1 - p) ** 2 * math.log(p))
        else:
            losses.append(-0.75 * p**2 * math.log(1 - p))
    return losses


# An annotated box, a pseudo box of weight 0.25, a negative query; what the negative one has as an
# IoU and a weight must not matter.
GOLDEN = dict(
    iou=torch.tensor([0.8, 0.8, NAN]),
    positive=torch.tensor([True, True, False]),
    weight=torch.tensor([1.0, 0.25, NAN]),
)


def test_golden_varifocal_loss_and_gradient():
    logits = zeros(3)
    losses = varifocal_objectness(logits, **GOLDEN)
    assert losses.tolist() == pytest.approx([0.554518, 0.277259, 0.129965], abs=5e-7)
    losses.sum().backward()
    # 0.223715 at the negative query if its factor p^2 had a gradient
    assert logits.grad.tolist() == pytest.approx([-0.24, -0.12, 0.09375], abs=1e-7)


def test_golden_denoising_loss_and_gradient():
    logits = zeros(3)
    losses = focal_denoising(logits, GOLDEN["positive"], GOLDEN["weight"])
    assert losses.tolist() == pytest.approx([0.043322, 0.021661, 0.129965], abs=5e-7)
    losses.sum().backward()
    # here the factor has a gradient
    assert logits.grad.tolist() == pytest.approx([-0.074572, -0.037286, 0.223715], abs=5e-7)


def test_losses_equal_naive_loops():
    logits, iou, positive, weight = queries()
    losses = varifocal_objectness(logits, iou, positive, weight)
    assert losses.tolist() == pytest.approx(naive_varifocal(logits, iou, positive, weight))
    losses = focal_denoising(logits, positive, weight)
    assert losses.tolist() == pytest.approx(naive_focal(logits, positive, weight))


def test_without_weights_they_are_1():
    logits, iou, positive, _ = queries(1)
    ones = torch.ones_like(logits)
    assert torch.equal(
        varifocal_objectness(logits, iou, positive),
        varifocal_objectness(logits, iou, positive, ones),
    )
    assert torch.equal(focal_denoising(logits, positive), focal_denoising(logits, positive, ones))


def test_denoising_is_the_known_focal_loss():
    logits, _, positive, _ = queries(2)
    known = sigmoid_focal_loss(logits, positive.double(), alpha=0.25, gamma=2)
    torch.testing.assert_close(focal_denoising(logits, positive), known)


def test_a_positive_query_without_overlap_costs_nothing():
    logits = torch.tensor([3.0, -3.0], requires_grad=True)
    losses = varifocal_objectness(logits, torch.zeros(2), torch.tensor([True, True]))
    losses.sum().backward()
    assert losses.tolist() == logits.grad.tolist() == [0.0, 0.0]


def test_a_positive_query_is_best_when_it_says_its_overlap():
    q = torch.tensor([0.1, 0.5, 0.93], dtype=torch.float64)
    logits = q.logit().requires_grad_()
    varifocal_objectness(logits, q, torch.ones(3, dtype=torch.bool)).sum().backward()
    assert logits.grad.tolist() == pytest.approx([0.0] * 3, abs=1e-12)


def test_the_overlap_gets_no_gradient():
    logits, iou, positive, weight = queries(3)
    logits.requires_grad_(), iou.requires_grad_(), weight.requires_grad_()
    varifocal_objectness(logits, iou, positive, weight).sum().backward()
    assert iou.grad is None
    assert weight.grad is None
    assert bool((logits.grad != 0).all())


@pytest.mark.parametrize("size", [100.0, 1e4])
def test_sure_queries_have_finite_losses_and_gradients(size):
    logits = torch.tensor([size, -size, size, -size], requires_grad=True)
    positive = torch.tensor([True, True, False, False])
    for losses in (
        varifocal_objectness(logits, torch.full((4,), 0.5), positive),
        focal_denoising(logits, positive),
    ):
        logits.grad = None
        losses.sum().backward()
        assert bool(losses.isfinite().all())
        assert bool(logits.grad.isfinite().all())


def test_layers_and_images_keep_their_places():
    logits, iou, positive, weight = queries(4, (3, 2, 5))
    assert torch.equal(
        varifocal_objectness(logits, iou, positive, weight)[1, 1],
        varifocal_objectness(logits[1, 1], iou[1, 1], positive[1, 1], weight[1, 1]),
    )
    assert torch.equal(
        focal_denoising(logits, positive, weight)[2, 0],
        focal_denoising(logits[2, 0], positive[2, 0], weight[2, 0]),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_computed_in_fp32(dtype):
    logits, iou, positive, weight = queries(5)
    half = logits.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = varifocal_objectness(half, iou, positive, weight.to(dtype))
        noisy = focal_denoising(half, positive, weight.to(dtype))
    assert losses.dtype == noisy.dtype == torch.float32
    exact = half.double(), positive, weight.to(dtype).double()
    assert losses.tolist() == pytest.approx(
        naive_varifocal(exact[0], iou, positive, exact[2]), rel=1e-5
    )
    assert noisy.tolist() == pytest.approx(naive_focal(*exact), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [("iou", r"iou of shape \(2,\)"), ("positive", "positive of"), ("weight", "weight of")],
)
def test_shapes_that_differ(name, message):
    logits, iou, positive, weight = queries(0, (3,))
    values = dict(iou=iou, positive=positive, weight=weight)
    values[name] = values[name][:2]
    with pytest.raises(ValueError, match=message + ".*one value a query"):
        varifocal_objectness(logits, **values)
    if name != "iou":
        del values["iou"]
        with pytest.raises(ValueError, match=message):
            focal_denoising(logits, **values)


# ---------------------------------------------------------------------------------------------
# overlaps


def boxes(count, seed):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator, dtype=torch.float64).sort(1).values
    return corners.flatten(1)


def naive_overlaps(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    iou = width * height / (union + 1e-6)
    return iou, iou - (hull - union) / (hull + 1e-6)


def test_overlaps_equal_a_naive_loop_for_all_pairs():
    a, b = boxes(6, 0), boxes(9, 1)
    iou, giou = paired_iou(a[:, None], b), paired_giou(a[:, None], b)
    assert iou.shape == giou.shape == (6, 9)
    expected = [naive_overlaps(left, right) for left in a.tolist() for right in b.tolist()]
    assert iou.flatten().tolist() == pytest.approx([pair[0] for pair in expected])
    assert giou.flatten().tolist() == pytest.approx([pair[1] for pair in expected])
    torch.testing.assert_close(giou, generalized_box_iou(a, b), atol=1e-3, rtol=0)
    torch.testing.assert_close(paired_iou(a, b[:6]), iou.diagonal())


def test_small_boxes_feel_what_is_added_to_the_denominators():
    small = torch.tensor([0.5, 0.5, 0.504, 0.504], dtype=torch.float64)  # 1.6e-5 of the image
    assert paired_iou(small, small).item() == pytest.approx(16 / 17)
    beside = small + torch.tensor([0.004, 0.0, 0.004, 0.0], dtype=torch.float64)
    assert paired_giou(small, beside).item() == pytest.approx(0.0, abs=1e-9)
    apart = small + torch.tensor([0.008, 0.0, 0.008, 0.0], dtype=torch.float64)
    assert paired_giou(small, apart).item() == pytest.approx(-16 / 49)


def test_boxes_of_zero_size_have_finite_overlaps_and_gradients():
    point = torch.tensor([0.5, 0.5, 0.5, 0.5], requires_grad=True)
    other = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.1, 0.9]])
    for overlap in (paired_iou, paired_giou):
        point.grad = None
        values = overlap(point, other)
        values.sum().backward()
        assert bool(values.isfinite().all())
        assert bool(point.grad.isfinite().all())
        assert values[0].item() == 0.0


def test_gradients_of_overlaps():
    a, b = boxes(5, 2).requires_grad_(), boxes(5, 3).requires_grad_()
    assert gradcheck(paired_iou, (a, b))
    assert gradcheck(paired_giou, (a, b))


def test_half_boxes_are_computed_in_fp32():
    a, b = boxes(4, 4).bfloat16(), boxes(4, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        giou = paired_giou(a, b.float())
    assert giou.dtype == torch.float32
    torch.testing.assert_close(giou, paired_giou(a.double(), b).float())


COORDINATE = st.floats(0, 1, width=32)
BOX = st.tuples(COORDINATE, COORDINATE, COORDINATE, COORDINATE).map(
    lambda c: torch.tensor(
        [min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])], dtype=torch.float64
    )
)


@settings(max_examples=60, deadline=None)
@given(BOX, BOX)
def test_overlaps_are_symmetric_and_bounded(a, b):
    iou, giou = paired_iou(a, b).item(), paired_giou(a, b).item()
    assert iou == paired_iou(b, a).item()
    assert giou == paired_giou(b, a).item()
    assert 0 <= iou < 1
    assert -1 < giou <= iou + 1e-12
    flipped = [1 - each[[2, 3, 0, 1]] for each in (a, b)]
    assert paired_giou(*flipped).item() == pytest.approx(giou, abs=1e-9)
