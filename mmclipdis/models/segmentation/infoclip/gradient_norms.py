"""How strongly a term of a loss pulls at groups of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def gradient_norms(term: Tensor, groups: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    """Euclidean norms of the gradient of ``term``, the graph of which is kept.

    Nothing is accumulated in ``.grad``, so that hooks of DDP do not run: these are the gradients of
    this rank. Groups that the term does not reach are left out.

    Args:
        term: Scalar with a graph.
        groups: Parameters by the name of their group.

    Returns:
        Norm by name, each a scalar without graph, of float32 at least.
    """
    parameters = [p for group in groups.values() for p in group]
    if not parameters or not term.requires_grad:
        return {}
    # The forward pass has its types already; autocast would only confuse recomputed parts.
    with torch.autocast(term.device.type, enabled=False):
        found = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    gradients = iter(found)
    norms = {}
    for name, group in groups.items():
        own = [g for g in (next(gradients) for _ in group) if g is not None]
        if own:
            norms[name] = torch.stack(
                [torch.linalg.vector_norm(g, dtype=_at_least_float(g)) for g in own]
            ).norm()
    return norms


def _at_least_float(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
