"""How badly a linear auto-encoder reconstructs a place of a frozen dense map.

The best linear auto-encoder with k units keeps the k principal components of what it is trained on.
These are computed, which takes one pass over the images and has no settings to train with.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import roi_align

#: Part of a box's sides that is pooled, around its centre.
CENTRE = 1 / 8


class Moments:
    """Count, sum and second moments of vectors, in double precision."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.sum = torch.zeros(channels, dtype=torch.float64)
        self.squares = torch.zeros(channels, channels, dtype=torch.float64)

    def add(self, vectors: Tensor) -> None:
        """Count vectors (n, D)."""
        vectors = vectors.double()
        self.count += len(vectors)
        self.sum += vectors.sum(0).cpu()
        self.squares += (vectors.T @ vectors).cpu()


@dataclass(frozen=True)
class Reconstruction:
    """The best linear auto-encoder.

    Attributes:
        mean: (D,).
        basis: (D, k), orthonormal.
        unit: Mean squared error of what it was fitted to.
    """

    mean: Tensor
    basis: Tensor
    unit: float

    def errors(self, vectors: Tensor) -> Tensor:
        """Squared errors of vectors (n, D), in units of the mean one: 1 is what a cell has."""
        centred = vectors.double().cpu() - self.mean
        left = centred.square().sum(1) - (centred @ self.basis).square().sum(1)
        return left.clamp(min=0) / self.unit


def best_reconstruction(moments: Moments, explained: float) -> Reconstruction:
    """The auto-encoder with the least squared error on the vectors that were counted.

    Args:
        moments: Of the vectors.
        explained: Share of their variance, below 1, that it must keep: it has as few units as do.

    Raises:
        ValueError: nothing is left of the variance, so that every error would be 0.
    """
    mean = moments.sum / max(moments.count, 1)
    covariance = moments.squares / max(moments.count, 1) - torch.outer(mean, mean)
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=0).flip(0)  # by falling variance
    kept = values.cumsum(0) / values.sum().clamp(min=1e-300)
    count = int((kept < explained).sum()) + 1
    unit = float(values[count:].sum())
    if not unit > 1e-12 * float(mean.square().sum() + values.sum()):
        raise ValueError(
            f"--explained {explained:g}: an auto-encoder that keeps as much reconstructs all of "
            f"{moments.count:,} cells; give less, or more --fit-images"
        )
    return Reconstruction(mean, vectors.flip(1)[:, :count], unit)


def centre_features(maps: Tensor, rois: Tensor, stride: float) -> Tensor:
    """Mean of a dense map in the middle eighth of boxes.

    Args:
        maps: (B, D, h, w).
        rois: (n, 5): number of the image, x0, y0, x1, y1 in pixels of the input.
        stride: Pixels a cell of the map.

    Returns:
        (n, D), float32.
    """
    middle, half = (rois[:, 1:3] + rois[:, 3:]) / 2, (rois[:, 3:] - rois[:, 1:3]) / 2 * CENTRE
    centres = torch.cat([rois[:, :1], middle - half, middle + half], dim=1).to(maps.device)
    return roi_align(
        maps.float(), centres.float(), 1, 1 / stride, sampling_ratio=2, aligned=True
    ).flatten(1)
