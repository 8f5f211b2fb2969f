"""Masks of a photo from its colours alone: no model, no weights, and no label was ever seen."""

from __future__ import annotations

from numbers import Real
from typing import Any

import cv2
import numpy as np
from mmseg.registry import MODELS
from numpy.typing import NDArray


@MODELS.register_module()
class MeanShiftMasks:
    """Parts of one colour that hang together, as masks: for who has no mask generator at hand.

    Mean shift in space and colour flattens textures; neighbours (of four) whose flattened colours
    differ by less than ``join`` are of one part; parts are numbered by their size from 1, the
    largest first, and those below ``least`` are in no mask, 0. (In a photo without any such, the
    smallest number, which readers take for no mask, is 1, the largest part.) Deterministic. Things
    of several colours fall apart into these: masks of a trained generator (SAM 2 and others) are
    far better on photos, see :class:`~mmclipdis.models.segmentation.mask_folder.MaskFolder`.

    Time grows with the pixels: some 30 ms for 128 x 128, 0.4 s for 336 x 448 on one CPU core.

    Args:
        spatial: Radius of the mean shift in pixels of the photo as the model gets it.
        colour: Its radius in RGB of 0-255.
        join: Most that neighbours of one part differ in CIELAB (2.3 is just noticeable).
        least: Smallest share of the photo's pixels that a mask has.

    Raises:
        ValueError: a value that is no number above 0; a ``least`` of 1 or more.
    """

    def __init__(
        self, spatial: float = 8.0, colour: float = 40.0, join: float = 4.0, least: float = 0.003
    ) -> None:
        self.spatial, self.colour = _above_0("spatial", spatial), _above_0("colour", colour)
        self.join, self.least = _above_0("join", join), _above_0("least", least)
        if self.least >= 1:
            raise ValueError(f"MeanShiftMasks.least is a share below 1, got {least!r}")

    def __call__(self, photo: np.ndarray) -> NDArray[np.int64]:
        """Numbers of masks int64 (H, W) of a photo, uint8 RGB (H, W, 3); 0 is in none."""
        height, width = photo.shape[:2]
        labels = self._parts(self._flattened(photo))
        counts = np.bincount(labels)
        order = np.argsort(-counts, kind="stable")
        kept = order[counts[order] >= self.least * height * width]
        numbers = np.zeros(len(counts), np.int64)
        numbers[kept] = np.arange(1, len(kept) + 1)
        return numbers[labels].reshape(height, width)

    def _flattened(self, photo: np.ndarray) -> np.ndarray:
        """The photo after the mean shift, CIELAB float32 (H, W, 3)."""
        levels = int(min(photo.shape[:2]) >= 2)  # of the pyramid that it is quicker on
        flat = cv2.pyrMeanShiftFiltering(
            np.ascontiguousarray(photo), self.spatial, self.colour, maxLevel=levels
        )
        return np.asarray(cv2.cvtColor(flat.astype(np.float32) / 255, cv2.COLOR_RGB2LAB))

    def _parts(self, colours: np.ndarray) -> NDArray[np.int32]:
        """The part of each pixel, flat: connected where colours are close."""
        # only who makes masks of colours waits for them
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        places = np.arange(colours[..., 0].size).reshape(colours.shape[:2])
        below = _pairs(colours, places, self.join)
        beside = _pairs(colours.swapaxes(0, 1), places.T, self.join)
        one, other = (np.concatenate(ends) for ends in zip(below, beside, strict=True))
        links = coo_matrix((np.ones(len(one), bool), (one, other)), shape=(places.size,) * 2)
        return np.asarray(connected_components(links, directed=False)[1])


def _pairs(colours: np.ndarray, places: np.ndarray, join: float) -> tuple[Any, Any]:
    """Places of neighbours along the first axis whose colours are close."""
    close = np.linalg.norm(colours[1:] - colours[:-1], axis=-1) < join
    return places[:-1][close], places[1:][close]


def _above_0(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < np.inf:
        raise ValueError(f"MeanShiftMasks.{name} must be a number above 0, got {value!r}")
    return float(value)
