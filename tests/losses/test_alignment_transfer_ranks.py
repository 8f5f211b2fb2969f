"""InfoCLIP's losses of a batch that two processes share."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from mmclipdis.losses.alignment_transfer import compression_loss, distillation_loss
from mmclipdis.losses.ranks import gather_samples
from tests.ranks import run_ranks

OPTIONS = {
    "batch": {},
    "order 3": {"alpha": 3},
    "pixel": {"gram_axis": "pixel"},
}
SHARES = {"2 and 2": [[0, 3], [1, 2]], "1 and 3": [[0], [1, 2, 3]]}


def _step(inputs, mine, options, across_ranks=True):
    """All losses of linear relations, and the gradient of the weights."""
    weight = torch.eye(6, 5, dtype=torch.float64).requires_grad_()
    bias = torch.full((5,), 0.1, dtype=torch.float64).requires_grad_()
    images, noise, text = (x[mine] for x in inputs)
    teacher = images @ weight + bias
    student = (images + noise) @ weight
    options = {**options, "across_ranks": across_ranks}
    loss = 0.7 * distillation_loss(teacher, student, **options)
    loss = loss + compression_loss(images, teacher, **options)
    if "gram_axis" not in options:
        loss = loss + 2 * compression_loss(images, teacher, text=text, **options)
    for kind in ("mse", "kl"):
        loss = loss + distillation_loss(teacher, student, kind=kind, across_ranks=across_ranks)
    loss.backward()
    return torch.cat([loss.detach()[None], weight.grad.flatten(), bias.grad])


def _rank(rank):
    """Average over two ranks, as DDP takes it, against the joint batch in one process."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3, 6), (4, 3, 6), (4, 5, 6)]
    inputs = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    averages = {}
    for share, images in SHARES.items():
        for name, options in OPTIONS.items():
            average = _step(inputs, images[rank], options)
            dist.all_reduce(average)
            averages[share, name] = average / 2
    alone = _step(inputs, SHARES["2 and 2"][rank], {}, across_ranks=False)
    gathered = gather_samples(torch.arange(6.0).view(3, 2)[: 3 * rank])
    assert torch.equal(gathered, torch.arange(6.0).view(3, 2))  # the first rank has none
    with pytest.raises(ValueError, match=r"samples of \[2, 3\] numbers each"):
        gather_samples(torch.ones(2, 2 + rank))
    dist.destroy_process_group()
    for (share, name), average in averages.items():
        joint = _step(inputs, [0, 1, 2, 3], OPTIONS[name])
        torch.testing.assert_close(average, joint, rtol=1e-10, atol=1e-12, msg=f"{share}, {name}")
    mine = _step(inputs, SHARES["2 and 2"][rank], {})
    assert torch.equal(alone, mine)


def test_the_average_of_two_ranks_is_the_joint_batch():
    """Value and gradient, also with one image on a rank and three on the other."""
    run_ranks(_rank, 2)
