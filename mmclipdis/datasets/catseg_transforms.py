"""Transforms of CAT-Seg's published data pipeline that mmseg lacks."""

from __future__ import annotations

from mmseg.datasets.transforms import ResizeShortestEdge
from mmseg.registry import TRANSFORMS


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
        self.resize = TRANSFORMS.build(
            {"type": "Resize", "scale": 0, "keep_ratio": False, "backend": "pillow"}
        )
