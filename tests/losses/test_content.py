"""Content loss: golden value, a loop over boxes, no boxes, half types, two ranks."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from mmclipdis.losses.content import content_loss
from mmclipdis.losses.context_correlation import context_correlation_loss
from tests.ranks import group_of_one, run_ranks


def test_golden_boxes_are_pooled_over_the_images():
    """DeCLIP G8: 1 box with cosine 1, 3 boxes of another image with cosine 0; not 0.5."""
    student = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0], [0.0, -1.0]])
    teacher = torch.tensor([[5.0, 0.0], [1.0, 0.0], [4.0, 0.0], [1.0, 0.0]])
    assert content_loss(student, teacher).item() == 0.75


def test_equals_a_loop_over_boxes():
    torch.manual_seed(0)
    student = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(7, 5, dtype=torch.float64)
    expected = 1 - sum((s @ t) / (s @ s * (t @ t)).sqrt() for s, t in zip(student, teacher)) / 7
    loss = content_loss(student, teacher)
    torch.testing.assert_close(loss, expected, atol=1e-12, rtol=0)
    gradients = [torch.autograd.grad(value, student)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)
    assert torch.autograd.gradcheck(lambda s: content_loss(s, teacher), student)


@pytest.mark.parametrize(("factor", "expected"), [(3.0, 0.0), (-0.5, 2.0)])
def test_lengths_do_not_count(factor, expected):
    features = torch.randn(6, 8, dtype=torch.float64)
    assert content_loss(features, factor * features).item() == pytest.approx(expected, abs=1e-12)


def test_the_teacher_gets_no_gradient():
    student, teacher = torch.randn(2, 3, 4, requires_grad=True).unbind()
    kept = [student.retain_grad(), teacher.retain_grad()]
    content_loss(student, teacher).backward()
    assert kept and student.grad.any() and teacher.grad is None


def test_no_box_gives_zero_and_gradient_zero():
    weight = torch.ones(4, 4, requires_grad=True)
    loss = content_loss(torch.zeros(0, 4) @ weight, torch.zeros(0, 4))
    loss.backward()
    assert loss.item() == 0 and torch.equal(weight.grad, torch.zeros(4, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_fp32_also_under_autocast(dtype):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 9, 16).to(dtype)
    student.requires_grad_()
    with torch.autocast("cpu", dtype):
        loss = content_loss(student, teacher)
    assert loss.dtype == torch.float32
    expected = content_loss(student.detach().double(), teacher.double())
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert torch.autograd.grad(loss, student)[0].dtype == dtype


@pytest.mark.parametrize("shapes", [((3, 4), (2, 4)), ((3, 4), (3, 5)), ((1, 3, 4), (1, 3, 4))])
def test_shapes_must_fit(shapes):
    with pytest.raises(ValueError, match=r"Expected student and teacher features \(M, D\)"):
        content_loss(*(torch.zeros(shape) for shape in shapes))


def _step(images, goals, regions, index):
    """Both losses of a linear student, and the gradient of its weight."""
    weight = torch.full((6, 5), 0.5, dtype=torch.float64, requires_grad=True)
    maps = torch.einsum("dc, bchw -> bdhw", weight + torch.eye(6, 5), images)
    loss = 2 * content_loss(maps[:, :, 1, 1][index], regions)
    loss = loss + context_correlation_loss(maps, goals, chunk=4)
    loss.backward()
    return torch.cat([loss.detach()[None], weight.grad.flatten()])


def _rank(rank):
    """Average over two ranks with two of four images each, as DDP takes it; then alone."""
    generator = torch.Generator().manual_seed(0)
    images, goals, regions = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((4, 5, 3, 3), (4, 6, 3, 3), (9, 6))
    )
    index = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 1])
    shares = {"3 and 6 boxes": [[0, 3], [1, 2]], "9 and none": [[0, 1], [2, 3]]}
    averages = {}
    for name, share in shares.items():
        mine = share[rank]
        boxes = torch.isin(index, torch.tensor(mine))
        local = (index[boxes, None] == torch.tensor(mine)).int().argmax(1)
        averages[name] = _step(images[mine], goals[mine], regions[boxes], local)
        dist.all_reduce(averages[name])
        averages[name] /= 2
    dist.destroy_process_group()
    joint = _step(images, goals, regions, index)
    for name, average in averages.items():
        torch.testing.assert_close(average, joint, atol=1e-12, rtol=0, msg=name)


def test_the_average_of_two_ranks_is_the_joint_batch():
    """Value and gradient (DeCLIP G18), however the boxes are distributed."""
    run_ranks(_rank, 2)


def test_a_rank_can_count_alone():
    student, teacher = torch.randn(2, 3, 4)
    expected = content_loss(student, teacher)
    with group_of_one(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "all_reduce", lambda boxes: boxes.mul_(2))
        alone = content_loss(student, teacher, across_ranks=False)
        assert alone == expected != content_loss(student, teacher)
