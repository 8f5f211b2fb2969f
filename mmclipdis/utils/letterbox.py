"""Letterboxing: an image scaled into a square and padded with black, and boxes that follow.

DeCLIP, section 2.1 of its released code (inherited from CLIPSelf): the longest side becomes the
side of the square, both sides are rounded, PIL resizes (bicubic); the student's and the VFM's
images are padded right and below, a teacher's crop on all sides.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Anchor = Literal["corner", "centre"]


def letterbox_size(width: int, height: int, side: int) -> tuple[int, int]:
    """(width, height) in pixels of the scaled content: the longer one is ``side``."""
    scale = side / max(width, height)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def letterbox(image: Image.Image, side: int, anchor: Anchor = "corner") -> NDArray[np.uint8]:
    """``image`` on a black square of ``side`` pixels.

    Args:
        image: RGB.
        side: Of the square, in pixels.
        anchor: ``corner`` pads right and below; ``centre`` on all sides, an odd pixel right/below.

    Returns:
        ``(side, side, 3)`` uint8, RGB.
    """
    width, height = letterbox_size(*image.size, side)
    content = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    left, top = ((side - width) // 2, (side - height) // 2) if anchor == "centre" else (0, 0)
    square = np.zeros((side, side, 3), dtype=np.uint8)
    square[top : top + height, left : left + width] = content
    return square


def normalised_boxes(boxes: NDArray[np.floating], width: int, height: int) -> NDArray[np.float32]:
    """Boxes ``(n, 4)`` x0, y0, x1, y1 in pixels of the image, in units of its corner letterbox.

    Both axes are divided by the longer side, so the shorter one never reaches 1.
    """
    return (np.asarray(boxes, dtype=np.float64) / max(width, height)).astype(np.float32)
