"""Counting and gathering over the ranks of a distributed run, which share one batch."""

from __future__ import annotations

from typing import Any, cast

import torch
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


def gather_samples(samples: Tensor, across_ranks: bool = True) -> Tensor:
    """Samples ``(n, d)`` of all ranks, ``(N, d)`` in the order of the ranks, with gradient.

    For losses of the joint batch that every rank computes as a whole, the same on each. A rank's
    own samples get their gradient times the number of ranks (nothing is sent for it), so that the
    average over the ranks, as DDP takes it, is exactly the gradient of the joint batch. Ranks may
    hold different numbers of samples, also none, and every rank has to make the call.

    Args:
        samples: This rank's, ``(n, d)``.
        across_ranks: False returns them as they are, without communication.

    Raises:
        ValueError: not ``(n, d)``, or d differs between the ranks (on each of them).
    """
    if samples.ndim != 2:
        raise ValueError(f"Expected samples (n, d), got {tuple(samples.shape)}.")
    if not _together(across_ranks) or dist.get_world_size() == 1:
        return samples
    own = torch.tensor(samples.shape, device=samples.device)
    shapes = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(shapes, own)
    counts, widths = torch.stack(shapes).T.tolist()
    if len(set(widths)) > 1:
        raise ValueError(
            f"The ranks hold samples of {widths} numbers each, in this order; samples of a joint "
            "batch have the same size: give every rank the same classes and image size."
        )
    return cast(Tensor, _Gather.apply(samples, counts))  # type: ignore[no-untyped-call]


class _Gather(torch.autograd.Function):
    """All samples forward; this rank's share of the gradient, times the ranks, backward."""

    @staticmethod
    def forward(ctx: Any, samples: Tensor, counts: list[int]) -> Tensor:
        ctx.counts, ctx.rank = counts, dist.get_rank()
        most = max(counts)  # backends want equal sizes
        padded = samples.new_zeros(most, samples.shape[1])
        padded[: len(samples)] = samples
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        own = torch.split(gradient, ctx.counts)[ctx.rank]
        return own * len(ctx.counts), None


def _together(across_ranks: bool) -> bool:
    return across_ranks and dist.is_available() and dist.is_initialized()
