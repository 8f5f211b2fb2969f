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
        spread: Mean squared distance from the mean, the unit of the errors.
    """

    mean: Tensor
    basis: Tensor
    spread: float

    def errors(self, vectors: Tensor) -> Tensor:
        """Squared distance of vectors (n, D) from what is reconstructed, in units of ``spread``."""
        centred = vectors.double().cpu() - self.mean
        left = centred.square().sum(1) - (centred @ self.basis).square().sum(1)
        return left.clamp(min=0) / self.spread


def best_reconstruction(moments: Moments, components: int) -> Reconstruction:
    """The auto-encoder with the least squared error on the vectors that were counted.

    Raises:
        ValueError: as many components as channels, or more: every error would be 0; or vectors
            that are all the same.
    """
    channels = len(moments.sum)
    if not 1 <= components < channels:
        raise ValueError(
            f"--components {components}: the dense map has {channels} channels, and an "
            f"auto-encoder with an error has 1 to {channels - 1}"
        )
    mean = moments.sum / max(moments.count, 1)
    covariance = moments.squares / max(moments.count, 1) - torch.outer(mean, mean)
    spread = float(covariance.trace())
    if not spread > 1e-12:
        raise ValueError(
            f"{moments.count:,} cells of the dense map are all the same: are the weights loaded?"
        )
    basis = torch.linalg.eigh(covariance).eigenvectors[:, -components:]
    return Reconstruction(mean, basis, spread)


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
