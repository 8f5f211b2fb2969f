"""A map of values as colours over its photo."""

from __future__ import annotations

from numbers import Real

import cv2
import numpy as np


def draw_heat(
    photo: np.ndarray,
    values: np.ndarray,
    opacity: float = 0.6,
    limits: tuple[float, float] | None = None,
) -> np.ndarray:
    """Lay the colours of values (H, W) over their RGB photo (H, W, 3), uint8.

    Args:
        photo: RGB uint8 (H, W, 3).
        values: float (H, W).
        opacity: Of the colours, in [0, 1].
        limits: The values that are blue and red; None for the smallest and the largest (of a map
            with one value everywhere all is blue).

    Raises:
        ValueError: sizes differ, the opacity is not in [0, 1], or limits that do not rise.
    """
    if photo.shape[:2] != values.shape:
        raise ValueError(f"photo has {photo.shape[:2]} pixels, values {values.shape}")
    if not isinstance(opacity, Real) or not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be a number in [0, 1], got {opacity!r}")
    low, high = (float(values.min()), float(values.max())) if limits is None else limits
    if limits is not None and not low < high:
        raise ValueError(f"limits={limits!r}: the first must be below the second")
    scaled = ((values - low) / (high - low)).clip(0, 1) if high > low else np.zeros_like(values)
    coloured = cv2.applyColorMap((255 * scaled).round().astype(np.uint8), cv2.COLORMAP_TURBO)
    rgb = np.ascontiguousarray(coloured[..., ::-1])
    return np.asarray(cv2.addWeighted(photo, 1 - opacity, rgb, opacity, 0))
