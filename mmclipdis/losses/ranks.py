"""Counting over the ranks of a distributed run, which share one batch."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def world_size(across_ranks: bool = True) -> int:
    """Ranks that share the batch: those of the default process group, or 1.

    DDP averages gradients over the ranks. A rank's *sum* times this number therefore averages to
    the sum over the joint batch.
    """
    return dist.get_world_size() if _together(across_ranks) else 1


def count_per_rank(count: Tensor, across_ranks: bool = True) -> Tensor:
    """Mean of ``count`` over the ranks; that of a single item if there is none at all.

    A rank's sum over this number averages (as DDP does it) to the mean over the joint batch,
    however the items are distributed. One number is reduced, in place, and every rank has to make
    the call, also one whose count is 0.

    Args:
        count: Items of this rank, a scalar.
        across_ranks: False counts this process only, without communication.
    """
    if _together(across_ranks):
        dist.all_reduce(count)
    return count.clamp(min=1) / world_size(across_ranks)


def _together(across_ranks: bool) -> bool:
    return across_ranks and dist.is_available() and dist.is_initialized()
