"""DeCLIP's training boxes: the cells of a random grid, and their pixels for the teacher.

Section 2.1 of the facts about its released code (``grid_distill``, inherited from CLIPSelf).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmengine.registry import TRANSFORMS
from numpy.typing import NDArray

from mmclipdis.utils.letterbox import letterbox, normalised_boxes


def grid_shapes(max_split: int = 6) -> list[tuple[int, int]]:
    """The (rows m, columns n) to draw from: ceil(m/2) <= n <= min(2m, max_split); 24 for 6."""
    return [
        (rows, cols)
        for rows in range(1, max_split + 1)
        for cols in range((rows + 1) // 2, min(2 * rows, max_split) + 1)
    ]


def grid_cells(rows: int, cols: int) -> NDArray[np.float64]:
    """Equal cells of the unit square, ``(rows * cols, 4)`` x0, y0, x1, y1, row by row.

    Neighbours share their edge exactly, and the outer edges are 0 and 1 exactly.
    """
    x, y = np.arange(cols + 1) / cols, np.arange(rows + 1) / rows
    return np.array([[x[j], y[i], x[j + 1], y[i + 1]] for i in range(rows) for j in range(cols)])


def enlarged(box: NDArray[np.float64], factor: float, width: int, height: int) -> tuple[float, ...]:
    """``box`` with its sides times ``factor`` around its centre, clamped to the image."""
    if factor == 1:  # no detour: an edge on half a pixel must round like its neighbour's
        return tuple(box.tolist())
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * factor
    x0, y0 = np.maximum(centre - half, 0)
    x1, y1 = np.minimum(centre + half, (width, height))
    return float(x0), float(y0), float(x1), float(y1)


@TRANSFORMS.register_module()
class GridCrops(BaseTransform):
    """Cut an image into the equal cells of a grid whose shape is drawn.

    Random numbers come from NumPy's global generator, as in mmcv's transforms.

    Required keys: ``pil`` (RGB image). Added keys: ``crops`` uint8 (n, 3, R, R), RGB letterboxed
    around the centre; ``boxes`` float32 (n, 4), x0, y0, x1, y1 in units of the corner-letterboxed
    student image; ``grid`` (rows, columns).

    Args:
        crop_size: Side R of a crop in pixels: the native size of the teacher.
        max_split: Most rows and most columns.
        max_boxes: Cells kept of a grid that has more; they are drawn. All come in random order.
        crop_scale: Above 1 crops show this much more than their box on each axis, up to the border
            of the image. Boxes stay as they are.

    Raises:
        ValueError: An argument is out of range, or an image has a side below ``max_split`` pixels.
    """

    def __init__(
        self,
        crop_size: int = 224,
        max_split: int = 6,
        max_boxes: int = 20,
        crop_scale: float = 1.0,
    ) -> None:
        if min(crop_size, max_split, max_boxes) < 1 or not 1 <= crop_scale < float("inf"):
            raise ValueError(
                "crop_size, max_split, max_boxes and crop_scale must be at least 1, got "
                f"{crop_size}, {max_split}, {max_boxes} and {crop_scale}."
            )
        self.crop_size = crop_size
        self.max_split = max_split
        self.max_boxes = max_boxes
        self.crop_scale = crop_scale
        self.shapes = grid_shapes(max_split)

    @cache_randomness
    def _draw(self) -> tuple[tuple[int, int], NDArray[np.int64]]:
        """(rows, columns), and the numbers of the cells that are kept, in their new order."""
        rows, cols = self.shapes[np.random.randint(len(self.shapes))]
        return (rows, cols), np.random.permutation(rows * cols)[: self.max_boxes]

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``crops``, ``boxes`` and ``grid``."""
        image = results["pil"]
        width, height = image.size
        if min(width, height) < self.max_split:  # or else a cell could round to nothing
            raise ValueError(
                f"{results.get('img_path', 'an image')} has {width}x{height} pixels, too few for "
                f"{self.max_split} cells a side; raise min_side of LoadPILImage or lower max_split."
            )
        (rows, cols), kept = self._draw()
        boxes = grid_cells(rows, cols)[kept] * (width, height, width, height)
        # PIL rounds the corners to whole pixels, halves to even ones.
        crops = [image.crop(enlarged(box, self.crop_scale, width, height)) for box in boxes]
        squares = np.stack([letterbox(crop, self.crop_size, "centre") for crop in crops])
        results["crops"] = squares.transpose(0, 3, 1, 2)
        results["boxes"] = normalised_boxes(boxes, width, height)
        results["grid"] = (rows, cols)
        return results

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(crop_size={self.crop_size}, max_split={self.max_split}, "
            f"max_boxes={self.max_boxes}, crop_scale={self.crop_scale})"
        )
