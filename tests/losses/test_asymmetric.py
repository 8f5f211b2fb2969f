"""ASL: golden values, the formula label by label, relatives, unknown labels, two ranks."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from mmclipdis.losses.asymmetric import asymmetric_loss
from tests.losses.multi_label import random_batch


def naive(logits, target, gamma_pos=1.0, gamma_neg=2.0, clip=0.05, eps=None):
    """Label by label in Python's floats."""
    total = 0.0
    for z, y in zip(logits.flatten().tolist(), target.flatten().tolist()):
        p = 1 / (1 + math.exp(-z))
        margin = max(p - clip, 0)
        low = eps or 0.0
        if y == 1:
            total -= (1 - p) ** gamma_pos * math.log(max(p, low))
        elif y == 0:
            total -= margin**gamma_neg * math.log(max(1 - margin, low))
    return total


def pair(p):
    """Logits of (negative, positive) with softmax p for the positive one."""
    return torch.tensor([0.3, 0.3 + math.log(p / (1 - p))], dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("eps", [None, 1e-6])
@pytest.mark.parametrize(
    ("p", "y", "value"), [(0.8, 1, 0.0446287103), (0.3, 0, 0.0179801295), (0.04, 0, 0.0)]
)
def test_golden_values(p, y, value, eps):
    negative, positive = pair(p)
    loss = asymmetric_loss((positive - negative).view(1, 1), torch.tensor([[y]]), eps=eps)
    assert loss.item() == pytest.approx(value, abs=1e-10)


def test_golden_sum():
    z = torch.tensor([[0.8, 0.3]], dtype=torch.float64).logit()
    assert asymmetric_loss(z, torch.tensor([[1, 0]])).item() == pytest.approx(
        0.0626088398, abs=1e-10
    )


@pytest.mark.parametrize("eps", [None, 1e-6])
@pytest.mark.parametrize(
    ("p", "y", "detach", "gradient"),
    [
        (0.8, 1, True, [0.04, -0.04]),
        (0.3, 0, True, [-0.0175, 0.0175]),
        (0.8, 1, False, [0.0757030, -0.0757030]),
        (0.3, 0, False, [-0.0477066, 0.0477066]),
    ],
)
def test_golden_gradients_of_the_pair(p, y, detach, gradient, eps):
    logits = pair(p)
    z = (logits[1] - logits[0]).view(1, 1)
    asymmetric_loss(z, torch.tensor([[y]]), detach_focusing=detach, eps=eps).backward()
    assert logits.grad.tolist() == pytest.approx(gradient, abs=5e-8)


@pytest.mark.parametrize("eps", [None, 1e-6])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("gammas", [(1, 2), (0, 4), (0.5, 0.5), (2, 0)])
@pytest.mark.parametrize("clip", [0.05, 0.0, 0.3])
def test_equals_the_formula_label_by_label(gammas, clip, detach, eps):
    logits, target = random_batch(unknown=0.3)
    loss = asymmetric_loss(logits, target, *gammas, clip, detach, eps)
    assert loss.item() == pytest.approx(naive(logits, target, *gammas, clip, eps), rel=1e-12)


@pytest.mark.parametrize("eps", [None, 1e-6])
@pytest.mark.parametrize("gammas", [(1, 2), (0.5, 0.5), (0, 0)])
@pytest.mark.parametrize("clip", [0.05, 0.0])
def test_gradient_is_that_of_the_value(gammas, clip, eps):
    logits, target = random_batch(3, 4, unknown=0.2)
    logits.requires_grad_()

    def loss(z):
        return asymmetric_loss(z, target, *gammas, clip, False, eps)

    assert torch.autograd.gradcheck(loss, logits)


@pytest.mark.parametrize("detach", [True, False])
def test_exponents_0_make_it_cross_entropy(detach):
    logits, target = random_batch()
    logits.requires_grad_()
    losses = (
        asymmetric_loss(logits, target, 0, 0, 0, detach),
        F.binary_cross_entropy_with_logits(logits, target, reduction="sum"),
    )
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in losses]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 3.0])
def test_equal_exponents_make_it_focal(gamma):
    logits, target = random_batch()
    logits.requires_grad_()
    losses = (
        asymmetric_loss(logits, target, gamma, gamma, 0, detach_focusing=False),
        sigmoid_focal_loss(logits, target, alpha=-1, gamma=gamma, reduction="sum"),
    )
    torch.testing.assert_close(*losses, rtol=1e-10, atol=0)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in losses]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)


def test_stable_and_limited_logarithms_differ_at_the_ends_only():
    logits, target = random_batch()
    stable, limited = (
        asymmetric_loss(logits, target, eps=eps, reduction="none") for eps in (None, 1e-6)
    )
    torch.testing.assert_close(stable, limited, rtol=1e-12, atol=1e-15)
    z = torch.tensor([[-20.0]], requires_grad=True)
    one = torch.ones(1, 1)
    limited = asymmetric_loss(z, one, eps=1e-6)
    assert limited.item() == pytest.approx(-math.log(1e-6), rel=1e-6)
    assert torch.autograd.grad(limited, z)[0].item() == 0  # such a positive is given up
    stable = asymmetric_loss(z, one)
    assert stable.item() == pytest.approx(20, rel=1e-6)
    assert torch.autograd.grad(stable, z)[0].item() == pytest.approx(-1, rel=1e-6)


@pytest.mark.parametrize("clip", [0.0, 1e-4])
@pytest.mark.parametrize("z", [10.0, 12.0, 13.5])
def test_a_probability_near_one_keeps_its_digits_with_a_limit(z, clip):
    wrong = torch.tensor([[z]], requires_grad=True)
    loss = asymmetric_loss(wrong, torch.zeros(1, 1), 1, 0, clip, eps=1e-6)
    rest = 1 / (1 + math.exp(z)) + clip  # 1 - p in single precision has lost half of its digits
    assert loss.item() == pytest.approx(-math.log(rest), rel=1e-6)
    slope = math.exp(-z) / (1 + math.exp(-z)) ** 2 / rest
    assert torch.autograd.grad(loss, wrong)[0].item() == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("gammas", [(1, 2), (0.5, 0.5), (0, 0)])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("eps", [None, 1e-6])
def test_extreme_logits_stay_finite(dtype, gammas, detach, eps):
    z = torch.tensor([[-6e4, -1e3, -100.0, 0.0, 100.0, 1e3, 6e4]] * 2, dtype=dtype)
    z.requires_grad_()
    target = torch.tensor([[0], [1]]).expand(2, 7)
    for clip in (0.0, 0.05):
        losses = asymmetric_loss(z, target, *gammas, clip, detach, eps, "none")
        assert losses.isfinite().all()
        assert torch.autograd.grad(losses.sum(), z)[0].isfinite().all()
        if eps is None:
            assert losses[1, 0].item() == z[1, 0].neg().item()
            certain = -z[0, 0].item() if clip == 0 else -math.log(clip) * (1 - clip) ** gammas[1]
            assert losses[0, 6].item() == pytest.approx(certain, rel=1e-5)


def test_probabilities_below_the_margin_cost_nothing():
    z = torch.tensor([[0.01, 0.0499, 0.0501]], dtype=torch.float64).logit().requires_grad_()
    losses = asymmetric_loss(z, torch.zeros(1, 3), reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), z)
    assert losses[0, :2].tolist() == [0, 0] and losses[0, 2] > 0
    assert gradient[0, :2].tolist() == [0, 0] and gradient[0, 2] > 0


@pytest.mark.parametrize("gammas", [(1, 2), (0, 0)])
@pytest.mark.parametrize("clip", [0.05, 0.0])
@pytest.mark.parametrize("eps", [None, 1e-6])
def test_a_logit_of_nan_costs_nan_unless_its_label_is_unknown(eps, clip, gammas):
    z = torch.full((1, 3), float("nan"))
    options = dict(gamma_pos=gammas[0], gamma_neg=gammas[1], clip=clip, eps=eps)
    losses = asymmetric_loss(z, torch.tensor([[1, 0, -1]]), **options, reduction="none")
    assert losses.isnan().tolist() == [[True, True, False]] and losses[0, 2] == 0
    absent = torch.tensor([[0.0, float("nan"), -9.0]])
    assert asymmetric_loss(absent, torch.zeros(1, 3), **options).isnan()


@pytest.mark.parametrize("logit", [0.7, float("nan"), float("inf"), float("-inf"), 1e30])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("eps", [None, 1e-6])
@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_unknown_labels_count_nowhere(logit, detach, eps, reduction):
    z, target = random_batch(2, 3)
    options = dict(detach_focusing=detach, eps=eps, reduction="none")
    z.requires_grad_()
    without = asymmetric_loss(z, target, **options)
    (expected,) = torch.autograd.grad(without.sum(), z)
    unknown = torch.tensor([[False, True, False], [True, False, False]])
    z = z.detach().masked_fill(unknown, logit).requires_grad_()
    target = target.masked_fill(unknown, -1)
    loss = asymmetric_loss(z, target, **{**options, "reduction": reduction})
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    known = without.detach().masked_fill(unknown, 0)
    divisor = 4 if reduction == "mean" else 1
    torch.testing.assert_close(
        loss.detach(), known if reduction == "none" else known.sum() / divisor
    )
    torch.testing.assert_close(gradient, expected.masked_fill(unknown, 0) / divisor)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_nothing_known_is_zero(reduction):
    z = torch.randn(2, 3, requires_grad=True)
    loss = asymmetric_loss(z, torch.full((2, 3), -1), reduction=reduction)
    loss.backward()
    assert loss.item() == 0 and torch.equal(z.grad, torch.zeros(2, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_fp32_also_under_autocast(dtype):
    logits, target = random_batch(30, 40)
    logits = logits.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype):
        loss = asymmetric_loss(logits, target)
        single = asymmetric_loss(logits.float(), target)
    assert loss.dtype == torch.float32
    assert loss == single == asymmetric_loss(logits.float(), target)
    assert loss.item() == pytest.approx(asymmetric_loss(logits.double(), target).item(), rel=1e-6)
    assert torch.autograd.grad(loss, logits)[0].dtype == dtype
    assert asymmetric_loss(logits.double(), target).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16])
def test_targets_of_any_type(dtype):
    logits, target = random_batch()
    assert asymmetric_loss(logits, target.to(dtype)) == asymmetric_loss(logits, target)


def test_reductions_weights_and_avg_factor():
    logits, target = random_batch(4, 5, unknown=0.3)
    each = asymmetric_loss(logits, target, reduction="none")
    known = int((target != -1).sum())
    assert each.shape == (4, 5) and 0 < known < 20

    def loss(reduction="mean", **options):
        return asymmetric_loss(logits, target, reduction=reduction, **options)

    torch.testing.assert_close(loss("sum"), each.sum())
    torch.testing.assert_close(loss(), each.sum() / known)
    torch.testing.assert_close(loss(avg_factor=4), each.sum() / 4)
    torch.testing.assert_close(loss(avg_factor=torch.tensor(4.0)), each.sum() / 4)
    torch.testing.assert_close(loss("sum", avg_factor=4), each.sum())
    torch.testing.assert_close(loss("none", avg_factor=4), each)
    images, labels = torch.rand(4), torch.rand(4, 5)
    torch.testing.assert_close(loss("none", weight=images), each * images[:, None])
    torch.testing.assert_close(loss("sum", weight=labels), (each * labels).sum())
    torch.testing.assert_close(loss(weight=labels), (each * labels).sum() / known)


def test_a_weight_of_nan_at_an_unknown_label_is_not_seen():
    z = torch.randn(1, 2, requires_grad=True)
    weight = torch.tensor([[1.0, float("nan")]])
    loss = asymmetric_loss(z, torch.tensor([[1, -1]]), weight=weight)
    loss.backward()
    assert loss.isfinite() and z.grad[0, 0] != 0 and z.grad[0, 1] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(target=torch.zeros(2, 4)), r"same shape, got \(2, 3\) and \(2, 4\)"),
        (dict(logits=torch.zeros(2, 2, 3)), r"same shape, got \(2, 2, 3\) and \(2, 3\)"),
        (dict(target=torch.full((2, 3), 0.5)), "only, got 0.5; soft labels are not supported"),
        (dict(target=torch.full((2, 3), 255)), "only, got 255"),
        (dict(target=torch.full((2, 3), float("nan"))), "only, got nan"),
        (dict(weight=torch.zeros(3)), r"weight \(B,\) or \(B, N\) for logits \(2, 3\), got \(3,\)"),
        (dict(gamma_pos=-1), "at least 0, got -1 and 2.0"),
        (dict(gamma_neg=float("nan")), "at least 0, got 1.0 and nan"),
        (dict(clip=1.0), r"clip is a probability in \[0, 1\), got 1.0"),
        (dict(clip=-0.1), "clip is a probability"),
        (dict(eps=0.0), r"eps must lie between 0 and 1 \(exclusive\) or be None, got 0.0"),
        (dict(reduction="max"), "reduction must be one of mean, sum, none, got 'max'"),
    ],
)
def test_errors_name_what_is_wrong(changes, message):
    arguments = dict(logits=torch.zeros(2, 3), target=torch.zeros(2, 3)) | changes
    with pytest.raises(ValueError, match=message):
        asymmetric_loss(**arguments)
