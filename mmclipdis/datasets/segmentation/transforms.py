"""Transforms of CAT-Seg's published data pipeline that mmseg lacks."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmseg.datasets.transforms import Resize, ResizeShortestEdge
from mmseg.registry import TRANSFORMS
from PIL import Image

#: Which label a pixel of a resized map gets.
NEAREST = ("floor", "centre")


class PillowResize(Resize):
    """mmseg's ``Resize`` with Pillow, also for label maps of 16 bits, which mmcv refuses.

    Args:
        scale: (width, height) in pixels.
        nearest: The rule by which label maps are resized, of :data:`NEAREST`.
    """

    def __init__(self, scale: int | tuple[int, int], nearest: str = "floor") -> None:
        super().__init__(scale=scale, backend="pillow")
        self.nearest = nearest

    def _resize_seg(self, results: dict[str, Any]) -> None:
        """Resize every label map to ``results['scale']``, (width, height), to the nearest."""
        width, height = results["scale"]
        for key in results.get("seg_fields", []):
            labels = results[key]
            if self.nearest == "centre":
                whole = Image.fromarray(labels.astype(np.int32))
                resized = whole.resize((width, height), Image.Resampling.NEAREST)
                results[key] = np.asarray(resized).astype(labels.dtype)
            else:
                rows = np.arange(height) * labels.shape[0] // height
                columns = np.arange(width) * labels.shape[1] // width
                results[key] = labels[rows[:, None], columns]


@TRANSFORMS.register_module()
class ResizeShortestEdgePIL(ResizeShortestEdge):
    r"""mmseg's ``ResizeShortestEdge`` with Pillow: bilinear with antialiasing, labels nearest.

    The released code resizes with Pillow, whose bilinear filter averages over the pixels it skips;
    OpenCV's, which mmseg uses, does not. The short edge comes out exactly at ``scale`` (mmseg
    derives it from the ratio once more, and may be one pixel off), and no edge at 0 pixels.

    Args:
        scale: Short edge in pixels.
        max_size: Bound of the long edge in pixels; it wins over ``scale``.
        nearest: Which of n labels the i-th of m is: ``"floor"``, :math:`\lfloor i n / m \rfloor`,
            as the released code (and OpenCV) has it, which shifts labels by up to half a pixel
            against the picture; or ``"centre"``, :math:`\lfloor (i + 1/2) n / m \rfloor`, Pillow's,
            which does not.

    Raises:
        ValueError: Sizes below 1, or an unknown rule.

    Source: CAT-Seg (CVPR 2024), released code, whose label maps are floats that PyTorch resizes.
    """

    def __init__(self, scale: int, max_size: int, nearest: str = "floor") -> None:
        if scale < 1 or max_size < 1:
            raise ValueError(f"scale and max_size must be >= 1, got {scale} and {max_size}.")
        if nearest not in NEAREST:
            raise ValueError(f"nearest must be one of {', '.join(NEAREST)}, got {nearest!r}.")
        super().__init__(scale=scale, max_size=max_size)
        self.resize = PillowResize(scale=0, nearest=nearest)

    def _get_output_shape(self, img: np.ndarray, short_edge_length: int) -> tuple[int, int]:
        """(width, height), at least one pixel each: 1 x 20,000 pixels would become 0 x 1333."""
        width, height = super()._get_output_shape(img, short_edge_length)
        return max(width, 1), max(height, 1)
