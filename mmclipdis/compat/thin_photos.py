"""mmcv's ``Resize`` and ``RandomFlip`` for photos of one row or column of pixels."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

Size = tuple[int, int]


def at_least_one_pixel(scale_size: Callable[[Size, Any], Size]) -> Callable[[Size, Any], Size]:
    """mmcv's ``_scale_size``, where no side of a photo vanishes.

    OpenCV cannot resize to 0 pixels and says so in C++. A scale of 0 stays a mistake.
    """

    @functools.wraps(scale_size)
    def scaled(size: Size, scale: Any) -> Size:
        width, height = scale_size(size, scale)
        scales = (scale, scale) if isinstance(scale, (float, int)) else scale
        if not all(float(factor) > 0 for factor in scales):
            return width, height
        return max(width, 1), max(height, 1)

    scaled.keeps_a_pixel = True  # type: ignore[attr-defined]
    return scaled


def without_negative_steps(flip: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """mmcv's ``imflip``, whose result PyTorch takes.

    A flipped column is a view with a negative step that NumPy calls contiguous, so that mmseg and
    mmdet do not copy it, and PyTorch refuses it.
    """

    @functools.wraps(flip)
    def flipped(*args: Any, **kwargs: Any) -> np.ndarray:
        image = flip(*args, **kwargs)
        return image.copy() if image.flags.c_contiguous and min(image.strides) < 0 else image

    flipped.keeps_a_pixel = True  # type: ignore[attr-defined]
    return flipped


def install_thin_photos() -> None:
    """Put the functions in the place of mmcv's, once."""
    geometric: Any = importlib.import_module("mmcv.image.geometric")
    if not getattr(geometric._scale_size, "keeps_a_pixel", False):
        geometric._scale_size = at_least_one_pixel(geometric._scale_size)
    processing: Any = importlib.import_module("mmcv.transforms.processing")
    processing._scale_size = geometric._scale_size
    mmdet_transforms: Any = sys.modules.get("mmdet.datasets.transforms.transforms")
    if mmdet_transforms is not None:  # imported before us: has a name for the original
        mmdet_transforms._scale_size = geometric._scale_size
    if not getattr(geometric.imflip, "keeps_a_pixel", False):
        geometric.imflip = without_negative_steps(geometric.imflip)
    for name in ("mmcv", "mmcv.image"):
        importlib.import_module(name).imflip = geometric.imflip  # type: ignore[attr-defined]
