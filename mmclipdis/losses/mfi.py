r"""DCLIP's mutual feature information (MFI) loss: projected class texts that do not overlap.

It has two readings, each the authors' own at some time. At :math:`\lambda = 1` they differ by the
constant D - M only, because the two matrices have the same Frobenius norm and trace; so the smaller
matrix of the two is computed, whichever is asked for.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Axis = Literal["feature", "class"]
Center = Literal["none", "bn"]
NormalizeBy = Literal["none", "rows"]

_OPTIONS = {
    "axis": ("feature", "class"),
    "center": ("none", "bn"),
    "normalize_by": ("none", "rows"),
}


def mfi_loss(
    text: Tensor,
    axis: Axis = "feature",
    lam: float = 0.2,
    center: Center = "none",
    normalize_by: NormalizeBy = "none",
) -> Tensor:
    r"""Distance of a Gram matrix of the class texts from the identity.

    .. math:: L = \sum_i (S_{ii} - 1)^2 + \lambda \sum_i \sum_{j \ne i} S_{ij}^2

    With the rows :math:`\hat t_m` of unit length in :math:`\hat T`, :math:`S` is

    - ``"feature"``: :math:`\hat T^\top \hat T`, (D, D). The first term spreads the energy evenly
      over the feature dimensions; at least :math:`(M - D)^2 / D`.
    - ``"class"``: :math:`\hat T \hat T^\top`, (M, M). The first term is 0, so that this is
      :math:`\lambda` times the sum of the squared cosines of different rows, unchanged by a
      rotation of the features.

    In a distributed run every rank computes the same value from the same texts, and there is
    nothing to gather: DDP's average over the ranks is the loss itself.

    Args:
        text: Projected class texts ``(M, D)`` of any length; each row is divided by its L2 norm.
            Half types are computed in fp32, also under autocast: entries of S reach M, and their
            squares leave fp16 from M = 256 on.
        axis: Which Gram matrix, see above.
        lam: Weight :math:`\lambda` of the off-diagonal entries, at least 0.
        center: ``"bn"`` standardises each feature dimension over the (unit) rows with their own
            mean and biased variance (eps 1e-5), as a batch norm does in training. Offered for
            comparison only: it subtracts the vector that all classes share before it can be
            punished. The loss is blind to it, and it is what makes all of CLIP's cosines high.
        normalize_by: ``"rows"`` divides S by M, as Barlow Twins does. It goes with ``"bn"`` and
            ``"feature"``: the diagonal is 1 then. (Without ``"bn"`` a diagonal of ones is out of
            reach.)

    Returns:
        A scalar, summed (not averaged) over the entries of S.

    Raises:
        ValueError: Not (M, D), less than two rows for ``"bn"``, or an option out of its range.

    Source: DCLIP (arXiv 2502.02977), eqs. 2 and 18, app. A.5; Barlow Twins (ICML 2021).
    """
    check_mfi_options(axis, lam, center, normalize_by)
    if text.ndim != 2:
        raise ValueError(f"Expected class texts (M, D), got {tuple(text.shape)}.")
    if center == "bn" and len(text) < 2:
        raise ValueError(
            f"center='bn' standardises over the rows and needs two of them, got {len(text)}; "
            "use center='none'."
        )
    with torch.autocast(text.device.type, enabled=False):
        text = text.float() if text.dtype.itemsize < 4 else text
        rows = F.normalize(text, dim=1)
        if center == "bn":
            rows = F.batch_norm(rows, None, None, training=True)
        if normalize_by == "rows":
            rows = rows / len(rows) ** 0.5  # S is quadratic in the rows
        return _distance_from_identity(rows, axis, lam)


def check_mfi_options(axis: str, lam: float, center: str, normalize_by: str) -> None:
    """Check the options of :func:`mfi_loss`.

    Raises:
        ValueError: An option that does not exist, or a negative ``lam``.
    """
    given = {"axis": axis, "center": center, "normalize_by": normalize_by}
    for name, value in given.items():
        if value not in _OPTIONS[name]:
            raise ValueError(f"{name} must be one of {', '.join(_OPTIONS[name])}, got {value!r}.")
    if not lam >= 0:
        raise ValueError(f"lam must be at least 0, got {lam}.")


def _distance_from_identity(rows: Tensor, axis: str, lam: float) -> Tensor:
    """The formula of :func:`mfi_loss` for rows that need not have unit length."""
    by_class = len(rows) <= rows.shape[1]  # the smaller matrix
    gram = rows @ rows.T if by_class else rows.T @ rows
    diagonal = rows.square().sum(1 if axis == "class" else 0)
    if by_class == (axis == "class"):
        own = torch.eye(len(gram), dtype=torch.bool, device=gram.device)
        off_diagonal = gram.masked_fill(own, 0).square().sum()
    else:  # no cancellation to speak of: the whole sum is at least M^2 / D or D^2 / M times larger
        off_diagonal = gram.square().sum() - diagonal.square().sum()
    return (diagonal - 1).square().sum() + lam * off_diagonal
