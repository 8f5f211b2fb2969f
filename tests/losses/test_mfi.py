"""MFI loss: golden values, the matrix written out, invariances, half types."""

from __future__ import annotations

import pytest
import torch

from mmclipdis.clip.text.similarity import mean_off_diagonal
from mmclipdis.losses.mfi import _distance_from_identity, mfi_loss

AXES = ["feature", "class"]
EYE = torch.eye(8)
EQUAL = EYE[:1].repeat(4, 1)
#: Four rows with all cosines 0.5: the corners of a simplex and what they share.
HALF = torch.cat([0.5**0.5 * torch.eye(4), torch.full((4, 1), 0.5**0.5)], dim=1)


def random_text(rows, dims, seed=0, shared=0.0):
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(rows, dims, generator=generator, dtype=torch.float64)
    return text + shared * torch.randn(dims, generator=generator, dtype=torch.float64)


def naive(text, axis, lam=0.2, center="none", normalize_by="none"):
    """The formula, entry by entry."""
    rows = text / text.square().sum(1, keepdim=True).sqrt()
    if center == "bn":
        shift = rows - rows.mean(0)
        rows = shift / (shift.square().mean(0) + 1e-5).sqrt()
    vectors = rows.unbind(0 if axis == "class" else 1)
    total = torch.zeros((), dtype=text.dtype)
    for i, first in enumerate(vectors):
        for j, second in enumerate(vectors):
            entry = (first * second).sum() / (len(text) if normalize_by == "rows" else 1)
            total = total + ((entry - 1) ** 2 if i == j else lam * entry**2)
    return total


@pytest.mark.parametrize(
    ("text", "by_class", "by_feature"),
    [
        (EYE, 0.0, 0.0),
        (EYE[:4], 0.0, 4.0),
        (EQUAL, 2.4, 16.0),
        (torch.ones(4, 8), 2.4, 4.8),
        (torch.tensor([[1.0, 0.0], [0.6, 0.8]]), 0.144, 0.35136),
        (HALF, 0.6, None),
    ],
)
def test_golden_values(text, by_class, by_feature):
    """DCLIP's goldens 1 to 4; lengths of the rows do not count."""
    for factor in (1.0, 7.0):
        assert mfi_loss(factor * text.double(), "class").item() == pytest.approx(by_class, abs=1e-6)
        if by_feature is not None:
            loss = mfi_loss(factor * text.double()).item()
            assert loss == pytest.approx(by_feature, abs=1e-6)
    assert mfi_loss(text, "class").item() == pytest.approx(by_class, abs=1e-6)


def test_golden_identity_is_zero_to_the_last_bit():
    assert [mfi_loss(EYE, axis).item() for axis in AXES] == [0.0, 0.0]


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6), (1, 4), (4, 1)])
@pytest.mark.parametrize("normalize_by", ["none", "rows"])
def test_equals_the_matrix_entry_by_entry(axis, shape, normalize_by):
    """Value and gradient, whichever of the two matrices is smaller."""
    text = random_text(*shape).requires_grad_()
    for center in ("none", "bn") if shape[0] > 1 else ("none",):
        for lam in (0.0, 0.2, 1.0, 3.0):
            options = dict(axis=axis, lam=lam, center=center, normalize_by=normalize_by)
            losses = mfi_loss(text, **options), naive(text, **options)
            torch.testing.assert_close(*losses, rtol=1e-10, atol=1e-10)
            gradients = [torch.autograd.grad(loss, text)[0] for loss in losses]
            torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("center", ["none", "bn"])
@pytest.mark.parametrize("shape", [(4, 6), (6, 4)])
def test_gradient_is_that_of_the_value(axis, center, shape):
    text = random_text(*shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: mfi_loss(t, axis, center=center), text)


@pytest.mark.parametrize("shape", [(160, 256), (300, 256), (3, 4), (8, 8)])
def test_lambda_1_makes_the_axes_one(shape):
    """Golden 3: the difference is D - M, 96 for 160 x 256, and has no gradient."""
    text = random_text(*shape, shared=2.0).requires_grad_()
    difference = mfi_loss(text, "feature", lam=1.0) - mfi_loss(text, "class", lam=1.0)
    assert difference.item() == pytest.approx(shape[1] - shape[0], abs=1e-8)
    assert torch.autograd.grad(difference, text)[0].abs().max() < 1e-9
    apart = mfi_loss(text, "feature") - mfi_loss(text, "class")
    assert abs(apart.item() - (shape[1] - shape[0])) > 0.1


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_a_rotation_of_the_features_matters_to_the_feature_axis_only(shape):
    text = random_text(*shape, shared=1.0)
    rotation = torch.linalg.qr(random_text(shape[1], shape[1], seed=1))[0]
    before, after = mfi_loss(text, "class"), mfi_loss(text @ rotation, "class")
    torch.testing.assert_close(before, after, rtol=1e-12, atol=1e-12)
    before, after = mfi_loss(text, "feature"), mfi_loss(text @ rotation, "feature")
    assert abs(before - after) > 0.01 * before


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("center", ["none", "bn"])
def test_the_order_of_the_rows_does_not_matter(axis, center):
    text = random_text(7, 5)
    losses = [mfi_loss(t, axis, center=center) for t in (text, text.flip(0))]
    torch.testing.assert_close(*losses, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5)])
def test_the_diagonal_of_the_class_axis_has_no_gradient(shape):
    """With lam=0 the diagonal is all there is (golden 4), and unit rows fix it."""
    text = random_text(*shape).requires_grad_()
    loss = mfi_loss(text, "class", lam=0.0)
    assert loss.item() < 1e-28
    assert torch.autograd.grad(loss, text)[0].abs().max() < 1e-15
    loss = mfi_loss(text, "feature", lam=0.0)
    assert loss >= (shape[0] - shape[1]) ** 2 / shape[1]
    assert torch.autograd.grad(loss, text)[0].abs().max() > 1e-3


@pytest.mark.parametrize("axis", AXES)
def test_bn_is_blind_to_what_the_rows_share(axis):
    """Golden 5. ``center="bn"`` sees unit rows; so it is those that get the shared vector."""
    text = random_text(6, 4)
    rows = text / text.norm(dim=1, keepdim=True)
    shared = torch.tensor([3.0, -1.0, 0.5, 2.0], dtype=torch.float64)

    def distance(x, centered):
        x = torch.nn.BatchNorm1d(4, affine=False).double()(x) if centered else x
        return _distance_from_identity(x, axis, 0.2)

    assert mfi_loss(text, axis, center="bn") == distance(rows, True)
    assert mfi_loss(text, axis) == distance(rows, False)
    shifted = distance(rows + shared, True)
    torch.testing.assert_close(shifted, distance(rows, True), rtol=1e-10, atol=0)
    assert abs(distance(rows + shared, False) - distance(rows, False)) > 1


def test_bn_does_not_see_a_rise_of_all_cosines():
    """A shared component beside the classes' own: cosines of 0 become 0.75, ``"bn"`` the same."""
    apart = torch.cat([torch.eye(12), torch.zeros(12, 1)], dim=1).double()
    alike = apart + 3**0.5 * torch.eye(13, dtype=torch.float64)[12]
    cosine = torch.cosine_similarity(alike[0], alike[1], dim=0)
    assert cosine.item() == pytest.approx(0.75)
    blind = [mfi_loss(t, center="bn", normalize_by="rows").item() for t in (apart, alike)]
    assert blind[1] == pytest.approx(blind[0], rel=2e-3)  # but for the eps of the batch norm
    assert mfi_loss(alike) > 10 * mfi_loss(apart)
    assert mfi_loss(alike, "class") > 10 + mfi_loss(apart, "class")


@pytest.mark.parametrize(
    ("options", "blind"),
    [
        (dict(axis="feature"), False),
        (dict(axis="class"), False),
        (dict(axis="feature", center="bn", normalize_by="rows"), True),
    ],
)
def test_training_a_projector_makes_the_classes_different_unless_centred(options, blind):
    torch.manual_seed(0)
    text = random_text(40, 64, shared=1.7).float()
    projector = torch.nn.Sequential(
        torch.nn.Linear(64, 48, bias=False), torch.nn.ReLU(), torch.nn.Linear(48, 32, bias=False)
    )
    optimizer = torch.optim.SGD(projector.parameters(), lr=1e-3, momentum=0.9)
    before = mean_off_diagonal(projector(text)).item()
    for _ in range(300):
        optimizer.zero_grad()
        mfi_loss(projector(text), **options).backward()
        optimizer.step()
    after = mean_off_diagonal(projector(text)).item()
    assert before > 0.7
    assert after > 0.7 if blind else after < 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("axis", AXES)
def test_half_types_are_computed_in_fp32_also_under_autocast(dtype, axis):
    """300 equal rows: 300 squared is more than fp16 holds (65504), and a sum of them anyway."""
    text = torch.ones(300, 16, dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", dtype):
        loss = mfi_loss(text, axis)
        single = mfi_loss(random_text(20, 30).float(), axis)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(naive_of_equal_rows(300, 16, axis), rel=1e-5)
    assert torch.autograd.grad(loss, text)[0].dtype == dtype
    assert single == mfi_loss(random_text(20, 30).float(), axis)


def naive_of_equal_rows(rows, dims, axis):
    if axis == "class":
        return 0.2 * rows * (rows - 1)
    entry = rows / dims
    return dims * (entry - 1) ** 2 + 0.2 * dims * (dims - 1) * entry**2


def test_a_square_of_a_large_sum_does_not_overflow():
    text = torch.eye(8, dtype=torch.float16)[:1].repeat(256, 1)  # one entry of S is 256
    assert mfi_loss(text).item() == 255.0**2 + 7
    assert torch.tensor(256.0, dtype=torch.float16).square().isinf()


def test_double_stays_double():
    assert mfi_loss(random_text(3, 4)).dtype == torch.float64


def test_a_row_of_zeros_has_no_nan():
    text = torch.zeros(2, 3, requires_grad=True)
    loss = mfi_loss(text)
    loss.backward()
    assert loss.item() == 3 and torch.equal(text.grad, torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(axis="row"), "axis must be one of feature, class, got 'row'"),
        (dict(center="mean"), "center must be one of none, bn, got 'mean'"),
        (dict(normalize_by="dims"), "normalize_by must be one of none, rows, got 'dims'"),
        (dict(lam=-0.1), "lam must be at least 0, got -0.1"),
        (dict(lam=float("nan")), "lam must be at least 0, got nan"),
    ],
)
def test_unknown_options(options, message):
    with pytest.raises(ValueError, match=message):
        mfi_loss(EYE, **options)


def test_shapes_must_fit():
    with pytest.raises(ValueError, match=r"Expected class texts \(M, D\), got \(2, 4, 8\)"):
        mfi_loss(torch.zeros(2, 4, 8))
    with pytest.raises(ValueError, match="needs two of them, got 1; use center='none'"):
        mfi_loss(torch.ones(1, 8), center="bn")
