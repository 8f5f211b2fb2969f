"""InfoCLIP's losses: closed forms, what has no effect, bounds, options, bad input.

The golden values are in ``tests/models/segmentation/infoclip/test_lpam.py``, with the module that
makes the relations.
"""

from __future__ import annotations

import math

import pytest
import torch

from mmclipdis.losses.alignment_transfer import compression_loss, distillation_loss
from mmclipdis.losses.ranks import gather_samples
from mmclipdis.losses.renyi import (
    joint_entropy,
    linear_gram,
    mutual_information,
    normalize_gram,
    renyi_entropy,
)

ORDERS = (0.5, 1, 1.01, 2, 3)


def maps(batch=4, pixels=9, seed=0):
    """Image features of 6 channels and two relations to 5 classes, float64."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, pixels, 6), (batch, pixels, 5), (batch, pixels, 5)]
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


def matrix(x):
    return normalize_gram(linear_gram(x.flatten(1)))


def approx(value, tolerance=1e-12):
    return pytest.approx(float(value), abs=tolerance)


@pytest.mark.parametrize("alpha", ORDERS)
def test_losses_equal_the_matrix_forms(alpha):
    images, teacher, student = maps()
    v, t, s = (matrix(x) for x in (images, teacher, student))
    compression = renyi_entropy(t, alpha) - joint_entropy(v, t, alpha=alpha)
    assert compression_loss(images, teacher, alpha=alpha).item() == approx(compression)
    information = mutual_information(t, s, alpha)
    assert distillation_loss(teacher, student, alpha=alpha).item() == approx(-information)


def test_order_two_equals_loops_over_the_pairs():
    images, teacher, student = maps()
    sums = dict.fromkeys(("t", "s", "ts", "vt"), 0.0)
    for i in range(4):
        for j in range(4):
            v, t, s = (
                (x[i] * x[j]).sum().item() ** 2 / (x[i].square().sum() * x[j].square().sum()).item()
                for x in (images, teacher, student)
            )
            for name, value in {"t": t, "s": s, "ts": t * s, "vt": v * t}.items():
                sums[name] += value / 16
    expected = -math.log2(sums["ts"] / (sums["t"] * sums["s"]))
    assert distillation_loss(teacher, student).item() == approx(expected)
    expected = math.log2(sums["vt"] / sums["t"])
    assert compression_loss(images, teacher).item() == approx(expected)


@pytest.mark.parametrize("alpha", ORDERS)
def test_text_counts_only_where_images_do_not_share_it(alpha):
    images, teacher, _ = maps()
    text = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    without = compression_loss(images, teacher, alpha=alpha).item()
    tolerance = 1e-7 if alpha < 1 else 1e-12
    assert compression_loss(images, teacher, text=text[0], alpha=alpha).item() == approx(
        without, tolerance
    )
    repeated = text[:1].expand(4, 5, 6)
    assert compression_loss(images, teacher, text=repeated, alpha=alpha).item() == approx(
        without, tolerance
    )
    v, t, own = matrix(images), matrix(teacher), matrix(text)
    expected = renyi_entropy(t, alpha) - joint_entropy(v, own, t, alpha=alpha)
    got = compression_loss(images, teacher, text=text, alpha=alpha).item()
    assert got == approx(expected, tolerance) and abs(got - without) > 1e-4


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gram_axis", ["batch", "pixel"])
def test_losses_keep_their_bounds(seed, gram_axis):
    images, teacher, student = maps(seed=seed)
    least = -math.log2(4 if gram_axis == "batch" else 9)
    assert least <= compression_loss(images, teacher, gram_axis=gram_axis) < 0
    assert least <= distillation_loss(teacher, student, gram_axis=gram_axis)


def test_the_bounds_are_reached():
    orthogonal = torch.eye(4, dtype=torch.float64).reshape(4, 2, 2)
    same = torch.ones(4, 2, 2, dtype=torch.float64)
    assert distillation_loss(orthogonal, 3 * orthogonal).item() == approx(-2)
    assert distillation_loss(orthogonal, same).item() == approx(0)
    assert compression_loss(orthogonal, same).item() == approx(-2)
    assert compression_loss(same, same).item() == approx(0)
    assert compression_loss(same, orthogonal).item() == approx(0)


def test_equal_relations_are_not_the_minimum():
    _, teacher, _ = maps()
    orthogonal = torch.eye(45, dtype=torch.float64)[:4].reshape(4, 9, 5)
    mixed = teacher + teacher.mean(0)
    assert distillation_loss(mixed, orthogonal) < distillation_loss(mixed, mixed)


@pytest.mark.parametrize("gram_axis", ["batch", "pixel"])
@pytest.mark.parametrize("alpha", ORDERS)
def test_images_and_lengths(gram_axis, alpha):
    """The order of the images does not count, nor does a factor of each sample."""
    images, teacher, student = maps(pixels=4)
    order = [2, 0, 3, 1]
    factors = torch.tensor([1, 3, -0.5, 8], dtype=torch.float64)
    factors = factors[:, None, None] if gram_axis == "batch" else factors[:, None]
    options = {"gram_axis": gram_axis, "alpha": alpha}
    loss = compression_loss(images, teacher, **options)
    moved = compression_loss(images[order], teacher[order], **options)
    scaled = compression_loss(images, teacher * factors, **options)
    assert [moved.item(), scaled.item()] == [approx(loss, 1e-10)] * 2
    loss = distillation_loss(teacher, student, **options)
    moved = distillation_loss(teacher[order], student[order], **options)
    scaled = distillation_loss(teacher, student * factors, **options)
    assert [moved.item(), scaled.item()] == [approx(loss, 1e-10)] * 2


@pytest.mark.parametrize("alpha", ORDERS)
def test_pixels_are_the_samples_of_each_image(alpha):
    """An image is a batch of its pixels; the mean over the images."""
    images, teacher, student = maps(pixels=5)
    options = {"alpha": alpha}
    compressed = [
        compression_loss(v[:, None], t[:, None], **options) for v, t in zip(images, teacher)
    ]
    shared = [
        distillation_loss(t[:, None], s[:, None], **options) for t, s in zip(teacher, student)
    ]
    options["gram_axis"] = "pixel"
    got = compression_loss(images, teacher, **options)
    assert got.item() == approx(sum(compressed) / 4, 1e-10)
    assert distillation_loss(teacher, student, **options).item() == approx(sum(shared) / 4, 1e-10)
    assert compression_loss(images[:1], teacher[:1], **options).item() == approx(compressed[0])


def test_a_subsample_of_pixels_is_drawn_anew_and_the_same_of_both():
    images, teacher, student = maps(pixels=7)
    torch.manual_seed(0)
    drawn = [torch.randperm(7)[:3] for _ in range(2)]
    torch.manual_seed(0)
    got = [
        compression_loss(images, teacher, gram_axis="pixel", subsample=3),
        distillation_loss(teacher, student, gram_axis="pixel", subsample=3),
    ]
    first, second = drawn
    expected = [
        compression_loss(images[:, first], teacher[:, first], gram_axis="pixel"),
        distillation_loss(teacher[:, second], student[:, second], gram_axis="pixel"),
    ]
    assert not torch.equal(first, second)
    torch.testing.assert_close(got, expected)
    whole = compression_loss(images, teacher, gram_axis="pixel")
    assert compression_loss(images, teacher, gram_axis="pixel", subsample=7) == whole


def test_plain_distances_equal_loops():
    _, teacher, student = maps()
    squares, divergence = 0.0, 0.0
    for t, s in zip(teacher.flatten(0, 1).tolist(), student.flatten(0, 1).tolist()):
        squares += sum((a - b) ** 2 for a, b in zip(t, s)) / 5
        p, q = ([math.exp(a / 0.5) for a in x] for x in (t, s))
        p, q = ([a / sum(x) for a in x] for x in (p, q))
        divergence += 0.25 * sum(a * math.log(a / b) for a, b in zip(p, q))
    assert distillation_loss(teacher, student, kind="mse").item() == approx(squares / 36)
    got = distillation_loss(teacher, student, kind="kl", temperature=0.5)
    assert got.item() == approx(divergence / 36)
    assert distillation_loss(teacher, teacher, kind="kl").item() == approx(0)
    assert distillation_loss(teacher[:1], student[:1], kind="mse") > 0  # one image is enough


@pytest.mark.parametrize("kind", ["mi", "mse", "kl"])
def test_neither_relation_is_detached(kind):
    _, teacher, student = (x.requires_grad_() for x in maps())
    gradients = torch.autograd.grad(
        distillation_loss(teacher, student, kind=kind), [teacher, student]
    )
    assert all(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("alpha", ORDERS)
@pytest.mark.parametrize("gram_axis", ["batch", "pixel"])
def test_gradients_pass_the_numeric_check(alpha, gram_axis):
    inputs = [x.requires_grad_() for x in maps(batch=3, pixels=3)]
    options = {"alpha": alpha, "gram_axis": gram_axis}

    def losses(images, teacher, student):
        compressed = compression_loss(images, teacher, **options)
        return compressed, distillation_loss(teacher, student, **options)

    assert torch.autograd.gradcheck(losses, inputs)


@pytest.mark.parametrize("options", [{}, {"alpha": 3}, {"gram_axis": "pixel"}])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_fp32_also_under_autocast(dtype, options):
    images, teacher, student = (x.to(dtype).requires_grad_() for x in maps())
    with torch.autocast("cpu", dtype):
        got = [
            compression_loss(images, teacher, **options),
            distillation_loss(teacher, student, **options),
        ]
        full = compression_loss(images.float(), teacher.float(), **options)
    exact = [x.detach().double() for x in (images, teacher, student)]
    expected = [compression_loss(*exact[:2], **options), distillation_loss(*exact[1:], **options)]
    assert [x.dtype for x in got] == [torch.float32] * 2
    assert [x.item() for x in [*got, full]] == [approx(x, 1e-5) for x in [*expected, expected[0]]]
    assert torch.autograd.grad(sum(got), student)[0].dtype == dtype


@pytest.mark.parametrize("kind", ["mse", "kl"])
def test_plain_distances_of_half_types_are_computed_in_fp32(kind):
    _, teacher, student = (x.bfloat16() for x in maps())
    with torch.autocast("cpu", torch.bfloat16):
        got = distillation_loss(teacher, student, kind=kind)
    assert got.dtype == torch.float32
    expected = distillation_loss(teacher.double(), student.double(), kind=kind)
    assert got.item() == approx(expected, 1e-5)


def test_one_image_in_all_is_an_error_that_says_what_to_do():
    images, teacher, student = maps(batch=1)
    for loss in (
        lambda: compression_loss(images, teacher),
        lambda: distillation_loss(teacher, student),
    ):
        with pytest.raises(ValueError, match="1 image in all.*a batch of 2 or more, several GPUs"):
            loss()


V, R = torch.ones(2, 3, 4), torch.ones(2, 3, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compression_loss(V, R, alpha=0), "alpha, the order of the entropy"),
        (lambda: compression_loss(V, R, gram_axis="class"), "one of batch, pixel, got 'class'"),
        (lambda: compression_loss(V, R, subsample=3), "subsample draws .* gram_axis='batch'"),
        (
            lambda: distillation_loss(R, R, gram_axis="pixel", subsample=1),
            "2 or more pixels .* subsample=1",
        ),
        (lambda: compression_loss(V[:, :2], R), r"images and relation of the same .* \(2, 2, 4\)"),
        (lambda: compression_loss(V[0], R), "images and relation of the same"),
        (lambda: compression_loss(V[:, :1], R[:, :1], gram_axis="pixel"), "2 pixels or more"),
        (lambda: compression_loss(V, R, text=torch.ones(4, 5)), r"B = 2 .* got \(4, 5\)"),
        (lambda: compression_loss(V, R, text=torch.ones(3, 5, 4)), r"B = 2 .* got \(3, 5, 4\)"),
        (
            lambda: compression_loss(V, R, text=torch.ones(5, 4), gram_axis="pixel"),
            "text has no pixels: leave it out",
        ),
        (lambda: distillation_loss(R, V), "teacher and student .* the same classes"),
        (lambda: distillation_loss(R, R, kind="l1"), "one of mi, mse, kl, got 'l1'"),
        (lambda: distillation_loss(R, R, kind="kl", alpha=3), "kind='kl' has no Gram matrix"),
        (lambda: distillation_loss(R, R, kind="mse", gram_axis="pixel"), "kind='mse' has no Gram"),
        (lambda: distillation_loss(R, R, kind="mse", temperature=2.0), "belongs to kind='kl'"),
        (lambda: distillation_loss(R, R, kind="kl", temperature=0.0), "positive, got 0.0"),
        (lambda: gather_samples(V), r"samples \(n, d\), got \(2, 3, 4\)"),
    ],
)
def test_bad_input_is_one_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
