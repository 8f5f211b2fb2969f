"""Context loss: golden values, the plain form, what must not matter, memory, bad arguments."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmclipdis.losses.context_correlation import context_correlation_loss


def correlation(maps):
    """(B, N, N), token by token."""
    tokens = maps.flatten(2).transpose(1, 2)
    rows = [[[a @ b / (a.norm() * b.norm()) for b in x] for a in x] for x in tokens]
    return torch.stack([torch.stack([torch.stack(row) for row in x]) for x in rows])


def naive(students, teachers, weights):
    """The definition, with loops."""
    ours = sum(correlation(x) for x in students) / len(students)
    theirs = sum(w * correlation(x) for x, w in zip(teachers, weights)).detach()
    norms = [(a - b).square().sum().sqrt() for x, y in zip(ours, theirs) for a, b in zip(x, y)]
    return sum(norms) / len(norms)


def plain(student, teacher):
    """Both matrices whole, with autograd."""
    ours, theirs = (torch.nn.functional.normalize(x.flatten(2), dim=1) for x in (student, teacher))
    difference = theirs.transpose(1, 2) @ theirs - ours.transpose(1, 2) @ ours
    return torch.linalg.vector_norm(difference, dim=2).mean()


def maps(*channels, batch=2, grid=(3, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, c, *grid, generator=generator, dtype=torch.float64) for c in channels
    ]


def as_map(rows):
    """(N, C) as (1, C, N, 1)."""
    return rows.T[None, :, :, None]


def test_golden_values():
    """DeCLIP G7: the mean norm of a row; not the squared error, not the Frobenius norm."""
    loss = context_correlation_loss(torch.ones(1, 3, 2, 1), as_map(torch.eye(2)))
    assert loss.item() == pytest.approx(1.0, abs=1e-6)
    x = torch.arange(12, dtype=torch.float64).view(3, 4)
    loss = context_correlation_loss(as_map(x.cos()), as_map(x.sin()))
    assert loss.item() == pytest.approx(0.223972, abs=5e-7)


@pytest.mark.parametrize(
    ("student", "teacher", "weights"),
    [
        ((5,), (7,), None),
        ((5, 5), (7,), None),
        ((4, 5, 6), (7, 3), (0.9, 0.1)),
        ((5,), (7, 3), None),
    ],
)
@pytest.mark.parametrize("chunk", [1, 5, 12, 23, 24, 1000])
def test_equals_the_definition_in_any_chunks(student, teacher, weights, chunk):
    """12 tokens: strips that do and do not divide them, and both images in one strip."""
    student, teacher = maps(*student), maps(*teacher, seed=1)
    student = [x.requires_grad_() for x in student]
    expected = naive(student, teacher, weights or [1 / len(teacher)] * len(teacher))
    loss = context_correlation_loss(student, teacher, weights, chunk)
    torch.testing.assert_close(loss, expected, atol=1e-12, rtol=0)
    pairs = zip(torch.autograd.grad(loss, student), torch.autograd.grad(expected, student))
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


def test_gradcheck():
    (student,), (teacher,) = maps(3, batch=3), maps(4, batch=3, seed=1)
    for chunk in (5, 24):
        assert torch.autograd.gradcheck(
            lambda x, chunk=chunk: context_correlation_loss(x, teacher, chunk=chunk),
            student.requires_grad_(),
        )


def test_equals_the_plain_form_in_fp32():
    torch.manual_seed(0)
    student = torch.randn(2, 64, 20, 25) + torch.randn(64, 1, 1)
    teacher = torch.randn(2, 96, 20, 25) + torch.randn(96, 1, 1)
    student.requires_grad_()
    values, gradients = [], []
    for loss in (context_correlation_loss(student, teacher, chunk=64), plain(student, teacher)):
        values.append(loss.item())
        gradients.append(torch.autograd.grad(loss, student)[0])
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert (gradients[0] - gradients[1]).norm() < 1e-5 * gradients[1].norm()


def test_a_student_near_its_teacher_keeps_its_digits():
    """Where sums over channels (a Gram matrix) would lose them in fp32."""
    torch.manual_seed(0)
    teacher = torch.randn(1, 64, 16, 16) + 2 * torch.randn(64, 1, 1)
    student = teacher + 0.1 * torch.randn_like(teacher)
    expected = plain(student.double(), teacher.double()).item()
    loss = context_correlation_loss(student, teacher, chunk=100).item()
    assert loss == pytest.approx(expected, rel=1e-5)


def test_order_of_tokens_and_lengths_do_not_matter():
    (student,), (teacher,) = maps(5), maps(7, seed=1)
    expected = context_correlation_loss(student, teacher, chunk=5).item()
    order = torch.randperm(12)
    moved = [x.flatten(2)[:, :, order].unflatten(2, (4, 3)) for x in (student, 3 * teacher)]
    assert context_correlation_loss(*moved, chunk=5).item() == pytest.approx(expected, abs=1e-12)


def test_a_list_of_one_is_the_map_and_of_equal_maps_too():
    (student,), (teacher,) = maps(5), maps(7, seed=1)
    expected = context_correlation_loss(student, teacher).item()
    for students, teachers in (([student], [teacher]), ([student] * 2, [teacher] * 3)):
        loss = context_correlation_loss(students, teachers).item()
        assert loss == pytest.approx(expected, abs=1e-12)


def test_rows_that_do_not_differ_get_no_gradient():
    student = maps(5)[0].float().requires_grad_()
    loss = context_correlation_loss(student, student.detach().clone(), chunk=5)
    loss.backward()
    assert loss.item() == 0 and torch.equal(student.grad, torch.zeros_like(student))


def test_a_token_of_zeros_correlates_with_none():
    (student,), (teacher,) = maps(5), maps(7, seed=1)
    student[0, :, 1, 2] = 0
    student.requires_grad_()
    loss = context_correlation_loss(student, teacher, chunk=5)
    loss.backward()
    torch.testing.assert_close(loss, plain(student, teacher), atol=1e-12, rtol=0)
    assert student.grad.isfinite().all() and not student.grad[0, :, 1, 2].any()


def test_the_teacher_gets_no_gradient():
    (student,), (teacher,) = maps(5), maps(7, seed=1)
    teacher.requires_grad_()
    assert not context_correlation_loss(student, teacher).requires_grad
    context_correlation_loss(student.requires_grad_(), teacher).backward()
    assert student.grad.any() and teacher.grad is None


def test_the_gradient_can_not_be_differentiated():
    student, teacher = maps(5)[0].requires_grad_(), maps(7, seed=1)[0]
    loss = context_correlation_loss(student, teacher)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, student, create_graph=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_fp32_also_under_autocast(dtype):
    student, teacher = maps(5)[0].to(dtype).requires_grad_(), maps(7, seed=1)[0].to(dtype)
    with torch.autocast("cpu", dtype):
        loss = context_correlation_loss(student, teacher, chunk=5)
    assert loss.dtype == torch.float32
    exact = student.detach().double().requires_grad_()
    expected = context_correlation_loss(exact, teacher.double())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    (gradient,), (goal,) = torch.autograd.grad(loss, student), torch.autograd.grad(expected, exact)
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient, goal.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)


class Sizes(TorchDispatchMode):
    """Largest number of elements of any result of an operator, and the products' operations."""

    def __init__(self):
        super().__init__()
        self.largest = self.multiplied = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.largest = max(self.largest, out.numel())
        if function.overloadpacket in (torch.ops.aten.bmm, torch.ops.aten.baddbmm_):
            left, right = args[-2:]
            self.multiplied += left.numel() * right.shape[-1]
        return out


def test_no_matrix_is_ever_whole_and_there_is_less_to_multiply():
    count, channels, chunk = 400, 6, 20
    student = torch.randn(1, channels, 20, 20, requires_grad=True)
    with Sizes() as sizes:
        context_correlation_loss(student, torch.randn_like(student), chunk=chunk).backward()
    assert sizes.largest <= chunk * count
    assert sizes.multiplied < 0.8 * 4 * count**2 * channels  # the plain form: four products


def test_without_gradient_none_is_computed():
    student, teacher = torch.randn(2, 1, 6, 20, 20)
    student.requires_grad_()
    with torch.no_grad(), Sizes() as sizes:
        loss = context_correlation_loss(student, teacher, chunk=20)
    assert sizes.multiplied < 0.55 * 2 * 400**2 * 6
    assert loss == context_correlation_loss(student, teacher, chunk=20)


def test_many_small_images_share_a_strip():
    """24 images of 4 tokens are 4 strips of 6 images, not 24."""
    student, teacher = torch.randn(2, 24, 3, 2, 2)
    calls = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.overloadpacket is torch.ops.aten.bmm:
                calls.append(len(args[0]))
            return function(*args, **(kwargs or {}))

    with Products():
        loss = context_correlation_loss(student, teacher, chunk=24)
    assert calls == [6] * 8
    torch.testing.assert_close(loss, plain(student, teacher))


def bad(student=((1, 4, 5, 6),), teacher=((1, 3, 5, 6),), **settings):
    make = [[torch.ones(shape) for shape in shapes] for shapes in (student, teacher)]
    return lambda: context_correlation_loss(*make, **settings)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (bad(teacher=((1, 3, 6, 5),)), "teacher's grid 6 x 5 differs from the student's 5 x 6"),
        (bad(student=((1, 4, 5, 6), (1, 4, 5, 7))), "student's grid 5 x 7 .* student's 5 x 6"),
        (bad(teacher=((2, 3, 5, 6),)), "teacher has 2 images, the student 1"),
        (bad(teacher=((1, 30, 3),)), r"\(B, C, h, w\), got \(1, 30, 3\)"),
        (bad(student=((0, 4, 5, 6),)), r"\(B, C, h, w\), got \(0, 4, 5, 6\)"),
        (bad(teacher=()), "at least one student and one teacher map, got 1 and 0"),
        (bad(weights=(0.9, 0.1)), "2 weights for 1 teachers"),
        (bad(weights=(0.9,)), r"positive and sum to 1, got \[0.9\]"),
        (bad(teacher=((1, 3, 5, 6),) * 2, weights=(1.5, -0.5)), "positive and sum to 1"),
        (bad(chunk=0), "chunk must be at least 1, got 0"),
    ],
)
def test_arguments_must_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call()
