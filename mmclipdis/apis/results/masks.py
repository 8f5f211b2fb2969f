"""Masks as COCO's json writes them: runs, which are exact, or polygons, which people edit."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco


def runs_of(mask: np.ndarray) -> dict[str, Any]:
    """A mask, bool (H, W), as COCO's compressed runs, with text that json takes."""
    found = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in found["size"]], "counts": found["counts"].decode()}


def polygons_of(mask: np.ndarray) -> list[list[float]]:
    """The outlines of a mask's parts, ``[x1, y1, x2, y2, ...]`` each; holes are filled.

    Corners are the outer corners of the pixels. A part of fewer than three corners has no outline.
    """
    # A margin of one and twice the size: contours run through the centres of pixels.
    large = np.pad(mask, 1).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    outlines, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = []
    for outline in outlines:
        corners = np.round((outline[:, 0].astype(np.float64) + 0.5) / 2) - 1
        corners = np.clip(corners, 0, (mask.shape[1], mask.shape[0]))
        if len(corners) >= 3:
            polygons.append(corners.ravel().tolist())
    return polygons


def box_of(mask: np.ndarray) -> list[float]:
    """x, y, width, height in pixels of what a mask covers; zeros where it covers nothing."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return [0.0, 0.0, 0.0, 0.0]
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    return [float(columns[0]), float(rows[0]), float(width), float(height)]


def segmentation_of(mask: np.ndarray, kind: str) -> Any:
    """A mask as an annotation's ``segmentation``, of kind ``'rle'`` or ``'polygons'``."""
    return runs_of(mask) if kind == "rle" else polygons_of(mask)
