"""Matrix-based Rényi information: golden values, naive references, bounds, gradients, bad input."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

from mmclipdis.losses.renyi import (
    conditional_entropy,
    joint,
    joint_entropy,
    linear_gram,
    multivariate_information,
    mutual_information,
    normalize_gram,
    rbf_gram,
    renyi_entropy,
)

ORDERS = (0.5, 0.95, 1, 1.01, 1.5, 2, 3, 5)
X = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 2]], dtype=torch.float64)
Y = torch.tensor([[2, 1], [1, 2], [0, 1], [1, -1]], dtype=torch.float64)


def identity(n):
    return torch.eye(n, dtype=torch.float64)


def equicorrelated(c, n=4):
    return (torch.full((n, n), c, dtype=torch.float64) + (1 - c) * identity(n)) / n


def random_matrix(n=6, d=4, seed=0, kernel=linear_gram):
    generator = torch.Generator().manual_seed(seed)
    return normalize_gram(kernel(torch.randn(n, d, generator=generator, dtype=torch.float64)))


def loop_entropy(matrix, alpha):
    """The definition with NumPy's general eigenvalues, one at a time."""
    eigenvalues = [float(v.real) for v in np.linalg.eigvals(matrix.numpy()) if v.real > 1e-14]
    if alpha == 1:
        return -sum(v * math.log2(v) for v in eigenvalues)
    return math.log2(sum(v**alpha for v in eigenvalues)) / (1 - alpha)


def approx(value, tolerance=6e-7):
    return pytest.approx(value, abs=tolerance)


@pytest.mark.parametrize("alpha", ORDERS)
@pytest.mark.parametrize("n", [1, 4])
def test_orthogonal_samples_have_log_n_bits_and_equal_ones_none(alpha, n):
    ones = torch.ones(n, n, dtype=torch.float64) / n
    assert renyi_entropy(identity(n) / n, alpha).item() == approx(math.log2(n), 1e-12)
    assert renyi_entropy(ones, alpha).item() == approx(0, 1e-12)


@pytest.mark.parametrize(
    ("alpha", "bits"),
    [(0.5, 0.899969), (1, 0.811278), (1.01, 0.809649), (2, 0.678072), (3, 0.596323), (5, 0.517316)],
)
def test_golden_two_samples(alpha, bits):
    matrix = torch.tensor([[0.5, 0.25], [0.25, 0.5]], dtype=torch.float64)
    assert renyi_entropy(matrix, alpha).item() == approx(bits)


@pytest.mark.parametrize(
    ("alpha", "bits"), [(0.5, 1.776968), (1, 1.548795), (1.01, 1.544422), (2, 1.192645), (3, 1)]
)
def test_golden_equicorrelated_samples(alpha, bits):
    assert renyi_entropy(equicorrelated(0.5), alpha).item() == approx(bits)


@pytest.mark.parametrize(("c", "bits"), [(0.0, 2), (0.5, 1.192645), (0.9, 0.221791), (1.0, 0)])
def test_golden_order_two_of_any_correlation(c, bits):
    entropy = renyi_entropy(equicorrelated(c)).item()
    assert entropy == approx(bits)
    assert entropy == approx(math.log2(4 / (1 + 3 * c**2)), 1e-12)


def test_golden_mutual_information():
    half = equicorrelated(0.5)
    assert mutual_information(half, half).item() == approx(0.633218)
    assert mutual_information(half, equicorrelated(0.8)).item() == approx(0.212274)
    for alpha in ORDERS:
        entropy = renyi_entropy(half, alpha).item()
        assert mutual_information(half, equicorrelated(0), alpha).item() == approx(entropy, 1e-12)
        assert mutual_information(half, equicorrelated(1), alpha).item() == approx(0, 1e-12)


@pytest.mark.parametrize(
    ("alpha", "values"),
    [
        (2, (1.299560, 0.882305, 1.530114, 0.651751)),
        (1.01, (1.404256, 0.937191, 1.683636, 0.657812)),
        (1, (1.405639, 0.937786, 1.685798, 0.657627)),
    ],
)
def test_golden_linear_kernels(alpha, values):
    a, b = normalize_gram(linear_gram(X)), normalize_gram(linear_gram(Y))
    got = (
        renyi_entropy(a, alpha),
        renyi_entropy(b, alpha),
        joint_entropy(a, b, alpha=alpha),
        mutual_information(a, b, alpha),
    )
    assert [value.item() for value in got] == [approx(value) for value in values]
    assert conditional_entropy(a, b, alpha).item() == approx(values[2] - values[1], 2e-6)


def test_golden_rbf_kernel():
    matrix = normalize_gram(rbf_gram(X, 1.0))
    assert renyi_entropy(matrix).item() == approx(1.568348)
    assert renyi_entropy(matrix, 1.01).item() == approx(1.747174)


def test_kernels_equal_loops():
    rows = X.tolist()
    gram, rbf = linear_gram(X).tolist(), rbf_gram(X, 0.7).tolist()
    scaled = normalize_gram(linear_gram(X)).tolist()
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            inner = sum(p * q for p, q in zip(a, b, strict=True))
            distance = sum((p - q) ** 2 for p, q in zip(a, b, strict=True))
            assert gram[i][j] == inner
            assert rbf[i][j] == approx(math.exp(-distance / 0.98), 1e-15)
            assert scaled[i][j] == approx(inner / 4 / math.hypot(*a) / math.hypot(*b), 1e-15)


@pytest.mark.parametrize("kernel", [linear_gram, lambda x: rbf_gram(x, 1.5)])
@pytest.mark.parametrize("alpha", ORDERS)
def test_information_equals_the_naive_sums(alpha, kernel):
    a, b, c = (random_matrix(seed=seed, kernel=kernel) for seed in range(3))
    product = torch.empty_like(a)
    for i in range(6):
        for j in range(6):
            product[i, j] = a[i, j] * b[i, j] * c[i, j] * 6**2  # trace 6^(1 - 3) before
    torch.testing.assert_close(joint(a, b, c), product, rtol=1e-12, atol=0)
    entropies = {
        key: loop_entropy(torch.stack(key_matrices).prod(0) * 6 ** (len(key) - 1), alpha)
        for n in (1, 2, 3)
        for key, key_matrices in zip(
            combinations("abc", n), combinations((a, b, c), n), strict=True
        )
    }
    s = {"".join(key): value for key, value in entropies.items()}
    got = {
        "joint": joint_entropy(a, b, c, alpha=alpha),
        "mutual": mutual_information(a, b, alpha),
        "multivariate": multivariate_information([a, b], c, alpha),
        "conditional": conditional_entropy(a, b, alpha),
    }
    expected = {
        "joint": s["abc"],
        "mutual": s["a"] + s["b"] - s["ab"],
        "multivariate": s["ab"] + s["c"] - s["abc"],
        "conditional": s["ab"] - s["b"],
    }
    for name, value in expected.items():
        assert got[name].item() == approx(value, 1e-7 if alpha < 1 else 1e-12), name


@pytest.mark.parametrize("seed", range(4))
def test_entropy_keeps_its_bounds_and_falls_with_the_order(seed):
    matrix = random_matrix(seed=seed)
    entropies = [renyi_entropy(matrix, alpha).item() for alpha in ORDERS]
    assert all(a > b + 1e-6 for a, b in pairwise(entropies))
    assert entropies[-1] > 0 and entropies[0] < math.log2(6)
    other = random_matrix(seed=seed + 10)
    larger = max(renyi_entropy(matrix), renyi_entropy(other))
    assert joint_entropy(matrix, other) >= larger


def test_the_linear_kernel_can_have_negative_information():
    """For which no function clamps it."""
    values = [
        mutual_information(random_matrix(4, 3, seed), random_matrix(4, 3, seed + 100)).item()
        for seed in range(300)
    ]
    assert min(values) < -1e-3


@pytest.mark.parametrize("alpha", ORDERS)
def test_order_of_samples_and_rotations_do_not_count(alpha):
    a, b = random_matrix(), random_matrix(seed=1)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    moved = [m[order][:, order] for m in (a, b)]
    rotation = torch.linalg.qr(random_matrix(seed=2, d=9))[0]
    entropy = renyi_entropy(a, alpha).item()
    tolerance = 1e-7 if alpha < 1 else 1e-12
    assert renyi_entropy(rotation @ a @ rotation.T, alpha).item() == approx(entropy, tolerance)
    assert renyi_entropy(moved[0], alpha).item() == approx(entropy, tolerance)
    together = joint_entropy(a, b, alpha=alpha).item()
    assert joint_entropy(*moved, alpha=alpha).item() == approx(together, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-6)])
@pytest.mark.parametrize("step", [1e-4, -1e-4, 1e-7, -1e-12])
def test_orders_close_to_one_reach_the_limit(step, dtype, tolerance):
    """The slope in alpha is about -0.5; fp32's rounding is not divided by the step."""
    matrix = random_matrix().to(dtype)
    limit = renyi_entropy(random_matrix(), 1).item()
    near = renyi_entropy(matrix, 1 + step).item()
    assert near == approx(limit, abs(step) + tolerance)
    assert near != limit or abs(step) < 1e-6


def test_the_two_ways_to_write_the_sum_meet():
    """Around 1 within 0.1, the plain logarithm beyond."""
    matrix = random_matrix()
    for edge in (0.9, 1.1):
        inside, outside = (renyi_entropy(matrix, edge + s).item() for s in (1e-9, -1e-9))
        assert inside == approx(outside, 1e-7)
        assert inside == approx(loop_entropy(matrix, edge), 1e-7)


def test_golden_gradient():
    matrix = equicorrelated(0.5).requires_grad_()
    (gradient,) = torch.autograd.grad(renyi_entropy(matrix), matrix)
    assert [gradient[0, 0].item(), gradient[0, 1].item()] == [approx(-1.648794), approx(-0.824397)]


@pytest.mark.parametrize("alpha", [0.5, 0.8, 1.01, 1, 2, 3])
def test_gradients_are_those_of_the_formula(alpha):
    """Near 1 up to a multiple of the identity, which trace 1 does not see."""
    matrix = random_matrix(n=5, d=9).requires_grad_()
    (got,) = torch.autograd.grad(renyi_entropy(matrix, alpha), matrix)
    values, vectors = torch.linalg.eigh(matrix.detach())
    if alpha == 1:
        slopes = -values.log2()
    else:
        slopes = alpha / (1 - alpha) / math.log(2) * values ** (alpha - 1)
        slopes = slopes / values.pow(alpha).sum()
    difference = got - vectors @ slopes.diag() @ vectors.T
    if 0.9 < alpha < 1.1:
        difference = difference - difference[0, 0] * identity(5)
    assert difference.abs().max() < 1e-10


@pytest.mark.parametrize("alpha", [0.5, 1, 1.01, 2, 3])
def test_gradients_of_information_pass_the_numeric_check(alpha):
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = x[:, :2] + 1

    def information(x, y):
        matrices = [normalize_gram(linear_gram(x)), normalize_gram(rbf_gram(y, 2.0))]
        return multivariate_information(matrices, normalize_gram(rbf_gram(x, 2.0)), alpha)

    inputs = [x.requires_grad_(), y.detach().requires_grad_()]
    assert torch.autograd.gradcheck(information, inputs)


@pytest.mark.parametrize("alpha", ORDERS)
def test_mutual_information_treats_both_alike(alpha):
    """Value and gradient, entry by entry; it is also the multivariate one of a single matrix."""
    a, b = (random_matrix(seed=s, d=9).requires_grad_() for s in (0, 1))
    values = [mutual_information(*pair, alpha) for pair in ((a, b), (b, a))]
    assert values[0].item() == approx(values[1].item(), 1e-14)
    gradients = [torch.autograd.grad(value, [a, b]) for value in values]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)
    assert multivariate_information([a], b, alpha).item() == approx(values[0].item(), 1e-12)


@pytest.mark.parametrize("alpha", ORDERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_without_full_rank(alpha, dtype):
    """Rank 1 and rank 2 of 4; from order 2 on also right, by the slope towards full rank."""
    for x in (torch.ones(4, 2), Y):
        matrix = normalize_gram(linear_gram(x.to(dtype))).requires_grad_()
        entropy = renyi_entropy(matrix, alpha)
        (gradient,) = torch.autograd.grad(entropy, matrix)
        assert gradient.isfinite().all() and gradient.any()
        if alpha >= 2 and dtype == torch.float64:
            towards = identity(4) / 4 - matrix.detach()
            slope = (renyi_entropy(matrix + 1e-7 * towards, alpha) - entropy) / 1e-7
            assert (gradient * towards).sum().item() == approx(slope.item(), 1e-5)


def test_zero_eigenvalues_count_towards_trace_one_near_order_one():
    """alpha = 1.05 at rank 2 of 4: the gradient is A^(alpha - 1) up to a multiple of identity."""
    matrix = normalize_gram(linear_gram(Y)).requires_grad_()
    (got,) = torch.autograd.grad(renyi_entropy(matrix, 1.05), matrix)
    values, vectors = torch.linalg.eigh(matrix.detach())
    values = values.where(values > 1e-14, 0)
    slopes = -1.05 / 0.05 / math.log(2) * values**0.05 / values.pow(1.05).sum()
    difference = got - vectors @ slopes.diag() @ vectors.T
    assert (difference - difference[0, 0] * identity(4)).abs().max() < 1e-10


@pytest.mark.parametrize("alpha", [0.5, 1.01, 2, 3])
def test_batch_dimensions_are_separate_matrices(alpha):
    x = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b = normalize_gram(linear_gram(x)), normalize_gram(rbf_gram(x, 1.0))
    together = mutual_information(a, b, alpha)
    assert together.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            one = (normalize_gram(linear_gram(x[i, j])), normalize_gram(rbf_gram(x[i, j], 1.0)))
            assert mutual_information(*one, alpha).item() == approx(together[i, j].item(), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("alpha", [1, 2, 3])
def test_half_types_are_computed_in_fp32_also_under_autocast(dtype, alpha):
    x, y = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    x.requires_grad_()

    def information(x, y):
        a, b = normalize_gram(linear_gram(x)), normalize_gram(rbf_gram(y, 1.0))
        return mutual_information(a, b, alpha)

    with torch.autocast("cpu", dtype):
        value = information(x, y)
        full = information(x.detach().float(), y.float())  # a product of fp32 is not cast either
    assert value.dtype == full.dtype == torch.float32
    expected = information(x.detach().double(), y.double())
    assert expected.dtype == torch.float64
    assert [value.item(), full.item()] == [approx(expected.item(), 1e-5)] * 2
    assert torch.autograd.grad(value, x)[0].dtype == dtype


@pytest.mark.parametrize("alpha", [0, -1, math.nan, math.inf])
def test_the_order_must_be_positive(alpha):
    with pytest.raises(ValueError, match=f"alpha, the order of the entropy.*{alpha}"):
        renyi_entropy(equicorrelated(0.5), alpha)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: renyi_entropy(torch.ones(2, 3)), r"square matrices .* got \(2, 3\)"),
        (lambda: renyi_entropy(torch.ones(0, 0)), r"square matrices .* got \(0, 0\)"),
        (lambda: joint(torch.eye(2), torch.eye(3)), r"same samples, got \(2, 2\) and \(3, 3\)"),
        (lambda: mutual_information(torch.eye(3), torch.eye(2)), "same samples"),
        (lambda: joint(), "at least one matrix"),
        (lambda: normalize_gram(torch.ones(3)), r"square matrices .* got \(3,\)"),
        (lambda: normalize_gram(linear_gram(torch.eye(3)[:, :2])), "sample 2 has 0; leave out"),
        (lambda: normalize_gram(torch.full((2, 2), math.nan)), "sample 0 has nan"),
        (lambda: linear_gram(torch.ones(3)), r"samples \(..., n, d\), got \(3,\)"),
        (lambda: rbf_gram(torch.ones(0, 3), 1.0), "samples"),
        (lambda: rbf_gram(X, 0.0), "sigma, the width of the kernel, must be positive, got 0.0"),
    ],
)
def test_bad_input_is_one_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
