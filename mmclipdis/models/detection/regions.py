"""Regions of a frozen CLIP's maps: pooled, or one embedding a box.

Source: F-ViT, the detector of CLIPSelf (ICLR 2024), after F-VLM (ICLR 2023).
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from mmclipdis.utils.precision import at_least_fp32, without_autocast

Normalize = Literal["before", "after"]


def region_embeddings(
    maps: Tensor,
    rois: Tensor,
    stride: float | tuple[float, float],
    normalize: Normalize = "before",
) -> Tensor:
    """CLIP's embedding of a box: the mean of the dense map in it (RoIAlign with one bin).

    Args:
        maps: ``(B, D, h, w)`` in the joint image-text space.
        rois: ``(n, 5)``: number of the image, x0, y0, x1, y1 in pixels of the input. What lies
            outside the map counts as zeros.
        stride: Pixels a cell of the map; (height, width) if they differ.
        normalize: Unit length of the cells ``'before'`` they are averaged (F-ViT), or only
            ``'after'`` (DeCLIP's distillation).

    Returns:
        ``(n, D)`` unit vectors, float32 (or float64); zeros for a box wholly outside.

    Raises:
        ValueError: another ``normalize``, or RoIs that are not (n, 5).
    """
    if normalize not in ("before", "after"):
        raise ValueError(f"normalize must be 'before' or 'after', got {normalize!r}")
    with without_autocast(maps):  # half-precision cosines tie
        maps = at_least_fp32(maps)
        if normalize == "before":
            maps = F.normalize(maps, dim=1)
        pooled = pool_boxes(maps, rois, stride, 1)
        return F.normalize(pooled.flatten(1), dim=1)


def pool_boxes(
    maps: Tensor, rois: Tensor, stride: float | tuple[float, float], size: int
) -> Tensor:
    """RoIAlign of boxes: aligned, with as many samples a bin as it has cells.

    Args:
        maps, rois, stride: As in :func:`region_embeddings`.
        size: Bins a side.

    Returns:
        ``(n, D, size, size)`` float32 (or float64); zeros for a box wholly outside or without area.

    Raises:
        ValueError: RoIs that are not (n, 5).
    """
    check_rois(rois)
    height, width = (stride, stride) if isinstance(stride, (int, float)) else stride
    with without_autocast(maps):
        maps = at_least_fp32(maps)
        cells = rois.to(maps) / maps.new_tensor([1, width, height, width, height])
        pooled: Tensor = roi_align(maps, cells, size, sampling_ratio=-1, aligned=True)
        return pooled


def check_rois(rois: Tensor) -> None:
    """Refuse RoIs without the number of their image.

    Raises:
        ValueError: they are not (n, 5).
    """
    if rois.ndim != 2 or rois.shape[1] != 5:
        raise ValueError(f"expected RoIs (n, 5), got {tuple(rois.shape)}")
