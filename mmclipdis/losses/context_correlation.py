"""DeCLIP's context loss: token correlations of the student against those of vision models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor


def context_correlation_loss(
    student: Tensor | Sequence[Tensor],
    teacher: Tensor | Sequence[Tensor],
    weights: Sequence[float] | None = None,
    chunk: int = 256,
) -> Tensor:
    r"""Mean distance between the rows of two cosine-similarity matrices over all N = h w tokens.

    .. math:: L = \frac{1}{B N} \sum_{b,i} \sqrt{\textstyle\sum_j (R^T_{bij} - R^S_{bij})^2}

    A list of maps stands for the (weighted) average of their correlations. With unit vectors
    scaled by :math:`\sqrt{w_k}` and put side by side, that average is the product of one matrix
    with itself. Neither :math:`N \times N` matrix is ever whole: strips of their difference are
    made, and made again for the gradient, which is computed along with the value. As the
    difference is symmetric, half of it is enough, and that saves more than doing it twice costs.

    (Moments over channels, :math:`C \times C`, would need no strips. But they subtract sums as
    large as the matrices themselves: with rows that differ by 4 % the norms are wrong by 2e-4 in
    fp32, with 0.4 % by 2e-2. In float64 they are exact enough, but not faster.)

    Args:
        student: Context features ``(B, C, h, w)``, or several of them (DeCLIP's ``csa``: q and
            k). Half types are computed in fp32. A token that is 0 correlates with none.
        teacher: Features ``(B, C', h, w)`` of a vision model, or of several; gets no gradient.
        weights: Weight of each teacher's correlations, used as they are: positive, of sum 1. None
            weighs them equally.
        chunk: Rows of the matrices at a time, over all images: ``2 chunk N`` numbers at most.

    Returns:
        A scalar. Rows that do not differ get the subgradient 0.

    Raises:
        ValueError: Maps that are not 4-D or empty, batch sizes or grids that differ, bad
            ``weights`` or ``chunk``.
        RuntimeError: From a backward pass with ``create_graph``, for second derivatives.

    Source: DeCLIP (CVPR 2025), eq. 9 as the released code reads it (the norm of a row, not
    squared); the average of q and k as its author describes it.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}.")
    students = [student] if isinstance(student, Tensor) else list(student)
    teachers = [teacher] if isinstance(teacher, Tensor) else list(teacher)
    _check_maps(students, teachers)
    equal = [1 / len(students)] * len(students)
    factors = check_weights(weights, len(teachers))
    with torch.autocast(students[0].device.type, enabled=False):
        tokens = _unit_tokens(students, equal)
        with torch.no_grad():
            goal = _unit_tokens(teachers, factors).to(tokens.dtype)
        distance = _RowDistance.apply(tokens, goal, chunk)  # type: ignore[no-untyped-call]
    return cast(Tensor, distance)


def _check_maps(students: Sequence[Tensor], teachers: Sequence[Tensor]) -> None:
    if not students or not teachers:
        raise ValueError(
            f"Expected at least one student and one teacher map, got {len(students)} and "
            f"{len(teachers)}."
        )
    for x in (*students, *teachers):
        if x.ndim != 4 or x.numel() == 0:
            raise ValueError(f"Expected feature maps (B, C, h, w), got {tuple(x.shape)}.")
    batch, _, *grid = students[0].shape
    for kind, maps in (("student", students), ("teacher", teachers)):
        for x in maps:
            if list(x.shape[2:]) != grid:
                raise ValueError(
                    f"The {kind}'s grid {x.shape[2]} x {x.shape[3]} differs from the student's "
                    f"{grid[0]} x {grid[1]}; give each model images of grid x its patch size."
                )
            if len(x) != batch:
                raise ValueError(f"The {kind} has {len(x)} images, the student {batch}.")


def check_weights(weights: Sequence[float] | None, count: int) -> Sequence[float]:
    """The weights of ``count`` teachers, equal ones for None.

    Raises:
        ValueError: another number of them, one that is not positive, or a sum other than 1.
    """
    if weights is None:
        return [1 / count] * count
    if len(weights) != count:
        raise ValueError(f"{len(weights)} weights for {count} teachers; give one for each.")
    if min(weights) <= 0 or not math.isclose(sum(weights), 1, abs_tol=1e-6):
        raise ValueError(f"weights must be positive and sum to 1, got {list(weights)}.")
    return weights


def _unit_tokens(maps: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """``(B, N, sum of C)``: tokens of all ``maps``, each of length ``sqrt(weight)``."""
    parts = []
    for x, weight in zip(maps, weights, strict=True):
        tokens = (x.float() if x.dtype.itemsize < 4 else x).flatten(2).transpose(1, 2)
        length = torch.linalg.vector_norm(tokens, dim=2, keepdim=True)
        length = length.where(length > 0, torch.inf)  # 0 stays 0, and gets gradient 0
        parts.append(tokens * (math.sqrt(weight) / length))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


class _RowDistance(torch.autograd.Function):
    """Mean row norm of ``T T^T - X X^T`` for X, T ``(B, N, C)``, ``(B, N, C')``."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, goal: Tensor, chunk: int) -> Tensor:
        batch, count, _ = tokens.shape
        gradient = torch.zeros_like(tokens) if ctx.needs_input_grad[0] else None
        total = tokens.new_zeros(())
        step = max(1, chunk // count)  # several small images are one strip
        for first in range(0, batch, step):
            images = slice(first, first + step)
            part = None if gradient is None else gradient[images]
            total += _add_images(tokens[images], goal[images], part, chunk)
        if gradient is not None:
            ctx.save_for_backward(gradient.div_(batch * count))
        return total / (batch * count)

    @staticmethod
    def backward(ctx: Any, output: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():  # PyTorch's once_differentiable would miss what is constant
            raise RuntimeError(
                "context_correlation_loss has no second derivative: leave create_graph out."
            )
        (gradient,) = ctx.saved_tensors
        return gradient * output, None, None


def _add_images(tokens: Tensor, goal: Tensor, gradient: Tensor | None, chunk: int) -> Tensor:
    """Sum of the row norms of some images; adds its gradient to ``gradient`` if there is one.

    The difference D is walked by strips of rows from the diagonal on. A strip serves its own rows
    and, transposed, the columns right of its square on the diagonal. With row norms n,

        dL / dX = -(E + E^T) X,  E_ij = D_ij / n_i,  so  (E + E^T)_ij = D_ij (1 / n_i + 1 / n_j).
    """
    starts = range(0, tokens.shape[1], chunk)
    squares = tokens.new_zeros(tokens.shape[:2])
    for start in starts:
        rows, later = slice(start, start + chunk), slice(start + chunk, None)
        strip = _difference(tokens, goal, start, chunk).square_()
        squares[:, rows] += strip.sum(2)
        squares[:, later] += strip[:, :, chunk:].sum(1)
        del strip  # before the next one is made
    norms = squares.sqrt_()
    if gradient is None:
        return norms.sum()
    factors = torch.where(norms > 0, -1 / norms, 0)
    for start in starts:
        rows, later = slice(start, start + chunk), slice(start + chunk, None)
        strip = _difference(tokens, goal, start, chunk)
        strip *= factors[:, rows, None] + factors[:, None, start:]
        gradient[:, rows].baddbmm_(strip, tokens[:, start:])
        gradient[:, later].baddbmm_(strip[:, :, chunk:].transpose(1, 2), tokens[:, rows])
        del strip
    return norms.sum()


def _difference(tokens: Tensor, goal: Tensor, start: int, chunk: int) -> Tensor:
    """Rows ``start`` to ``start + chunk`` of the difference, from column ``start`` on."""
    # Two products, not one that adds to the other: equal matrices then differ by exactly 0.
    goal, tokens = goal[:, start:], tokens[:, start:]
    strip = goal[:, :chunk] @ goal.transpose(1, 2)
    strip -= tokens[:, :chunk] @ tokens.transpose(1, 2)
    return strip
