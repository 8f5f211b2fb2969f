"""How much class features have in common: statistics of their cosines.

CLIP's text features of any two classes are alike, whatever the classes are: their mean cosine is
about 0.77 on the names of VOC and 0.69 on those of COCO. DCLIP ("Efficiently Disentangling CLIP
for Multi-Object Perception", arXiv 2502.02977) calls this mutual feature information and lowers
it. All numbers here are raw cosines in [-1, 1], never rescaled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.utils.precision import at_least_fp32

PERCENTILES = (5, 25, 50, 75, 95)


def mean_off_diagonal(features: Tensor) -> Tensor:
    """Mean cosine between different rows, ``(sum_ij S_ij - M) / (M (M - 1))``.

    Takes time and memory of ``M x D``, since the sum of the Gram matrix is the squared length of
    the sum of the unit rows.

    Args:
        features: ``(M, D)``, ``M >= 2``; lengths do not matter. A row of zeros counts as
            orthogonal to all.

    Returns:
        Scalar in [-1, 1], at least fp32, differentiable.

    Raises:
        ValueError: if there are fewer than two rows, or no rows but another shape.
    """
    count = _check_rows(features)
    unit = F.normalize(at_least_fp32(features), dim=1)
    # The diagonal is M, but for rounding and rows of zeros.
    total, diagonal = unit.sum(dim=0).square().sum(), unit.square().sum()
    return (total - diagonal) / (count * (count - 1))


def _check_rows(features: Tensor) -> int:
    """Number of rows of a matrix of at least two."""
    if features.ndim != 2:
        raise ValueError(f"features have shape {tuple(features.shape)}, expected (M, D)")
    if len(features) < 2:
        raise ValueError(f"{len(features)} class features: at least two are needed to compare them")
    return len(features)


def cosine_matrix(features: Tensor) -> Tensor:
    """Cosines ``(M, M)`` of all pairs of rows of ``(M, D)``, in float64, symmetric.

    Raises:
        ValueError: for fewer than two rows.
    """
    _check_rows(features)
    unit = F.normalize(features.detach().double(), dim=1)
    matrix = unit @ unit.T
    return ((matrix + matrix.T) / 2).clamp(-1, 1)  # a product is symmetric but for rounding


def similarity_report(
    features: Tensor,
    names: Sequence[str],
    top_k: int = 20,
    negatives: Tensor | None = None,
) -> dict[str, Any]:
    """Statistics of the cosines between the features of different classes, ready for JSON.

    Every pair of classes counts once; the standard deviation is that of the whole population.

    Args:
        features: One row a class, ``(M, D)``, ``M >= 2``, of any length.
        names: Of the classes.
        top_k: How many of the most similar pairs to list; all of them if there are fewer.
        negatives: Rows of the negative prompts ("Not a photo of a dog") of the same classes.

    Returns:
        ``num_classes``, ``mean_offdiag``, ``std``, ``min``, ``max``, ``percentiles`` by ``"5"``,
        ``"25"``, ``"50"``, ``"75"``, ``"95"``, ``top_pairs`` (the most similar first: ``names``,
        ``indices``, ``cosine``), and ``mean_pos_neg`` (of a class with its own negative) if
        ``negatives`` are given.

    Raises:
        ValueError: if the numbers of rows and names differ, there are fewer than two classes, a
            feature is zero or not finite, or ``top_k`` is negative.
    """
    _check_report(features, names, top_k, negatives)
    matrix = cosine_matrix(features).cpu()
    first, second = torch.triu_indices(len(names), len(names), offset=1)
    values = matrix[first, second]
    quantiles = torch.quantile(values, torch.tensor(PERCENTILES, dtype=values.dtype) / 100)
    # Stable, so that pairs of equal cosine stay in the order of the classes.
    order = values.argsort(descending=True, stable=True)[:top_k]
    report: dict[str, Any] = {
        "num_classes": len(names),
        "mean_offdiag": float(values.mean()),
        "std": float(values.std(correction=0)),
        "min": float(values.min()),
        "max": float(values.max()),
        "percentiles": dict(zip(map(str, PERCENTILES), quantiles.tolist(), strict=True)),
        "top_pairs": [
            {"names": [names[i], names[j]], "indices": [i, j], "cosine": value}
            for i, j, value in zip(
                first[order].tolist(), second[order].tolist(), values[order].tolist(), strict=True
            )
        ],
    }
    if negatives is not None:
        same = F.cosine_similarity(features.detach().double(), negatives.detach().double(), dim=1)
        report["mean_pos_neg"] = float(same.clamp(-1, 1).mean())
    return report


def _check_report(
    features: Tensor, names: Sequence[str], top_k: int, negatives: Tensor | None
) -> None:
    _check_rows(features)
    if len(features) != len(names):
        raise ValueError(f"{len(features)} features for {len(names)} class names")
    if top_k < 0:
        raise ValueError(f"top_k={top_k}: expected 0 or more pairs")
    if negatives is not None and negatives.shape != features.shape:
        raise ValueError(
            f"negatives have shape {tuple(negatives.shape)}, the features {tuple(features.shape)}: "
            "give one negative row a class"
        )
    for what, rows in (("", features), ("negative ", negatives)):
        if rows is None:
            continue
        length = rows.detach().double().norm(dim=1)
        useless = (~length.isfinite() | (length == 0)).nonzero().flatten().tolist()
        if useless:
            raise ValueError(
                f"the {what}feature of class {names[useless[0]]!r} is zero or not finite, and so "
                f"has no cosine ({len(useless)} of {len(names)} classes)"
            )
