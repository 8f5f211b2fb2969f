"""What the records of a pipeline (meta information of a sample) say of the photo in an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def resized_photo(meta: Mapping[str, Any]) -> tuple[int, int]:
    """(height, width) that ``Resize`` gave the photo of ``ori_shape``.

    mmcv's ``scale_factor`` is (across, down), or one number; a photo without it was not resized.
    """
    scale = meta.get("scale_factor")
    scale = 1.0 if scale is None else scale
    across, down = np.broadcast_to(np.asarray(scale, dtype=float).ravel()[:2], 2)
    height, width = meta["ori_shape"][:2]
    return max(round(height * float(down)), 1), max(round(width * float(across)), 1)


def misplaced(meta: Mapping[str, Any], found: Sequence[int]) -> str:
    """What is wrong with an image that holds less, or more, than its resized photo."""
    height, width = resized_photo(meta)
    photo = " x ".join(map(str, meta["ori_shape"][:2]))
    return (
        f"{meta.get('img_path', 'the image')}: the photo of {photo} pixels (height x width) is "
        f"resized to {height} x {width}, but the model gets {found[0]} x {found[1]}: a step of the "
        "test pipeline cuts it, pads it or resizes it once more, and nothing undoes that; leave "
        "the step out"
    )
