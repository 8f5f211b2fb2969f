"""Masked cross-entropy: golden values, a naive loop, what must get no gradient, bad input."""

from __future__ import annotations

import math

import pytest
import torch

from mmclipdis.losses.masked_cross_entropy import masked_cross_entropy, novel_class_weight

LOGITS = [[2.0, 5.0, 1.0, 0.0], [0.0, 3.0, 0.0, 1.0]]
LABELS = [0, 3]
WEIGHT = [1.0, 0.0, 1.0, 0.6]


def golden(dtype=torch.float64):
    logits = torch.tensor(LOGITS, dtype=dtype, requires_grad=True)
    return logits, torch.tensor(LABELS), torch.tensor(WEIGHT)


def naive(logits, labels, weight, sample_weight):
    losses = []
    for row, label, factor in zip(logits.tolist(), labels.tolist(), sample_weight.tolist()):
        if weight[label] == 0:
            losses.append(0.0)
            continue
        total = sum(math.exp(z) for z, w in zip(row, weight.tolist()) if w > 0)
        losses.append(-factor * weight[label].item() * math.log(math.exp(row[label]) / total))
    return losses


def test_golden_loss_and_gradient():
    logits, labels, weight = golden()
    each = masked_cross_entropy(logits, labels, weight, reduction="none")
    assert each.tolist() == pytest.approx([0.407606, 0.330867], abs=1e-6)
    loss = masked_cross_entropy(logits, labels, weight, avg_factor=2)
    assert loss.item() == pytest.approx(0.369236, abs=1e-6)
    loss.backward()
    expected = [[-0.167379, 0.0, 0.122364, 0.045015], [0.063582, 0.0, 0.063582, -0.127165]]
    torch.testing.assert_close(
        logits.grad, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0
    )
    assert logits.grad[:, 1].tolist() == [0.0, 0.0]


def test_golden_without_masking():
    logits, labels, _ = golden()
    weight = torch.tensor([1.0, 1.0, 1.0, 0.6])
    loss = masked_cross_entropy(logits, labels, weight, avg_factor=2)
    assert loss.item() == pytest.approx(2.199386, abs=1e-6)


def test_novel_logits_stay_finite_and_may_win():
    logits, labels, weight = golden()
    masked_cross_entropy(logits, labels, weight).backward()
    assert logits.tolist() == LOGITS  # the mask is not written into them
    assert logits.softmax(1).argmax(1).tolist() == [1, 1]


def test_equals_a_naive_loop():
    torch.manual_seed(0)
    logits = 3 * torch.randn(50, 9, dtype=torch.float64)
    labels = torch.randint(0, 9, (50,))
    weight = torch.tensor([1, 0, 2, 0, 1, 0.3, 1, 0, 0.9], dtype=torch.float64)
    factors = torch.rand(50, dtype=torch.float64)
    expected = naive(logits, labels, weight, factors)
    each = masked_cross_entropy(
        logits, labels, weight, sample_weight=factors, reduction="none"
    ).tolist()
    assert each == pytest.approx(expected, abs=1e-12)
    for reduction, avg_factor, value in [
        ("sum", None, sum(expected)),
        ("mean", None, sum(expected) / 50),
        ("mean", 7.0, sum(expected) / 7),
    ]:
        loss = masked_cross_entropy(
            logits, labels, weight, avg_factor, sample_weight=factors, reduction=reduction
        )
        assert loss.item() == pytest.approx(value, abs=1e-10)


def test_a_sample_of_a_masked_class_costs_nothing():
    logits = torch.randn(2, 4, requires_grad=True)
    loss = masked_cross_entropy(logits, torch.tensor([1, 0]), torch.tensor(WEIGHT))
    alone = masked_cross_entropy(logits[1:], torch.tensor([0]), torch.tensor(WEIGHT), 2)
    torch.testing.assert_close(loss, alone)
    loss.backward()
    assert logits.grad[0].tolist() == [0.0] * 4
    assert logits.grad.isfinite().all()


def test_no_samples():
    logits = torch.zeros(0, 4, requires_grad=True)
    loss = masked_cross_entropy(logits, torch.zeros(0, dtype=torch.long), torch.tensor(WEIGHT))
    assert loss.item() == 0.0
    loss.backward()
    assert logits.grad.shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_computed_in_fp32(dtype):
    logits, labels, weight = golden(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = masked_cross_entropy(logits, labels, weight, avg_factor=2)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.369236, abs=1e-6)


def test_weights_of_base_novel_and_background():
    weight = novel_class_weight([False, True, False], 0.6)
    torch.testing.assert_close(weight, torch.tensor(WEIGHT))
    with pytest.raises(ValueError, match="must be positive"):
        novel_class_weight([False], 0.0)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((2, 3), (3,), (3,)), {}, r"logits \(n, C\)"),
        (((2, 3), (2,), (4,)), {}, "one weight a class"),
        (((2, 3), (2,), (3,)), dict(reduction="max"), "must be one of"),
        (((2, 3), (2,), (3,)), dict(reduction="sum", avg_factor=2), "not a sum"),
    ],
)
def test_bad_input(shapes, options, message):
    logits, labels, weight = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        masked_cross_entropy(logits, labels.long(), weight, **options)
