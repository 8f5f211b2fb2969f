"""Transforms of CAT-Seg's published data pipeline that mmseg lacks."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmseg.datasets.transforms import Resize, ResizeShortestEdge
from mmseg.registry import TRANSFORMS
from PIL import Image


class PillowResize(Resize):
    """mmseg's ``Resize`` with Pillow, also for label maps of 16 bits, which mmcv refuses."""

    def __init__(self, scale: int | tuple[int, int]) -> None:
        super().__init__(scale=scale, backend="pillow")

    def _resize_seg(self, results: dict[str, Any]) -> None:
        """Resize every label map to ``results['scale']``, (width, height), to the nearest."""
        for key in results.get("seg_fields", []):
            labels = results[key]
            whole = Image.fromarray(labels.astype(np.int32))
            resized = whole.resize(results["scale"], Image.Resampling.NEAREST)
            results[key] = np.asarray(resized).astype(labels.dtype)


@TRANSFORMS.register_module()
class ResizeShortestEdgePIL(ResizeShortestEdge):
    """mmseg's ``ResizeShortestEdge`` with Pillow: bilinear with antialiasing, labels nearest.

    The released code resizes with Pillow, whose bilinear filter averages over the pixels it skips;
    OpenCV's, which mmseg uses, does not. The short edge comes out exactly at ``scale`` (mmseg
    derives it from the ratio once more, and may be one pixel off).

    Args:
        scale: Short edge in pixels.
        max_size: Bound of the long edge in pixels; it wins over ``scale``.

    Raises:
        ValueError: Sizes below 1.
    """

    def __init__(self, scale: int, max_size: int) -> None:
        if scale < 1 or max_size < 1:
            raise ValueError(f"scale and max_size must be >= 1, got {scale} and {max_size}.")
        super().__init__(scale=scale, max_size=max_size)
        self.resize = PillowResize(scale=0)
