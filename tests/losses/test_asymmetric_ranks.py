"""ASL of a batch that two processes share."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from mmclipdis.losses.asymmetric import asymmetric_loss
from tests.losses.multi_label import random_batch
from tests.ranks import group_of_one, run_ranks

SPLITS = {"1 and 5 images": 1, "known and unknown labels": 3}


def _step(logits, target, reduction, across_ranks=True):
    """Loss of a linear model's logits, and the gradient of its weight."""
    weight = torch.eye(9, dtype=torch.float64, requires_grad=True)
    loss = asymmetric_loss(logits @ weight, target, reduction=reduction, across_ranks=across_ranks)
    loss.backward()
    return torch.cat([loss.detach()[None], weight.grad.flatten()])


def _batch(split, rank=None):
    """Images of a rank, or all. 3 images have known labels; other numbers of them, too."""
    logits, target = random_batch(unknown=0.4)
    target[3:] = -1
    first = SPLITS[split]
    mine = {None: slice(None), 0: slice(first), 1: slice(first, None)}[rank]
    return logits[mine], target[mine]


def _rank(rank):
    """Average over two ranks, as DDP takes it, against the joint batch."""
    averages, alone = {}, {}
    for split in SPLITS:
        batch = _batch(split, rank)
        for reduction in ("sum", "mean"):
            average = _step(*batch, reduction)
            dist.all_reduce(average)
            averages[split, reduction] = average / 2
            alone[split, reduction] = _step(*batch, reduction, across_ranks=False)
        each = asymmetric_loss(*batch, reduction="none")
        torch.testing.assert_close(each.sum(), asymmetric_loss(*batch, across_ranks=False))
    dist.destroy_process_group()
    for (split, reduction), average in averages.items():
        joint = _step(*_batch(split), reduction)
        torch.testing.assert_close(average, joint, rtol=1e-12, atol=1e-12)
        mine = _step(*_batch(split, rank), reduction)
        assert torch.equal(alone[split, reduction], mine)
        assert split != "1 and 5 images" or not torch.allclose(mine, joint, rtol=0.01)


def test_the_average_of_two_ranks_is_the_joint_batch():
    """Sum and mean, value and gradient, however images and known labels are distributed."""
    run_ranks(_rank, 2)


def test_no_rank_is_asked_for_a_sum_or_a_given_divisor(monkeypatch):
    batch = random_batch()
    expected = asymmetric_loss(*batch)
    with group_of_one():
        monkeypatch.setattr(dist, "get_world_size", lambda: 3)
        monkeypatch.setattr(dist, "all_reduce", lambda count: count.mul_(6))
        sums = [asymmetric_loss(*batch, across_ranks=across) for across in (True, False)]
        mean = asymmetric_loss(*batch, reduction="mean")
        monkeypatch.setattr(dist, "all_reduce", None)
        given = asymmetric_loss(*batch, reduction="mean", avg_factor=4)
        alone = asymmetric_loss(*batch, reduction="mean", across_ranks=False)
    assert sums == [3 * expected, expected]
    assert given == expected / 4 and alone == expected / 54
    assert mean == pytest.approx(expected.item() / (54 * 6 / 3))
