"""A handful of generated photos: where something is in them, and nothing that has a name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmclipdis.shapes.scene import Scene, draw_scene
from mmclipdis.utils.whole_files import make_folder, write_picture

#: Photos of a split.
COUNT = 4
#: (height, width) in pixels of the photos in turn.
_SIZES = ((96, 128), (120, 90), (100, 100), (90, 140))


@lru_cache(maxsize=64)
def scene(number: int, seed: int) -> Scene:
    """Photo ``number`` (from 0) with what is where in it; the same in every data set."""
    return draw_scene(np.random.default_rng([seed, number]), _SIZES[number % len(_SIZES)])


def regions(number: int, seed: int) -> tuple[NDArray[np.int64], tuple[bool, ...]]:
    """Number of the region of each pixel ``(h, w)``, from 0, and which regions are things."""
    drawn = scene(number, seed)
    both = drawn.labels.astype(np.int64) + 1000 * drawn.instances.astype(np.int64)
    found, places = np.unique(both, return_inverse=True)
    return places.reshape(both.shape), tuple(bool(value >= 1000) for value in found)


def write_photo(path: Path, number: int, seed: int) -> tuple[int, int]:
    """Write photo ``number`` in the format of the path's ending; return (height, width)."""
    make_folder(path.parent)
    image = scene(number, seed).image
    write_picture(path, Image.fromarray(image))
    return image.shape[0], image.shape[1]


def random_box(rng: np.random.Generator, size: tuple[int, int]) -> list[int]:
    """A box (x, y, width, height) in whole pixels inside a photo of ``size`` (height, width)."""
    height, width = (int(rng.integers(side // 6, side // 2)) for side in size)
    top, left = int(rng.integers(size[0] - height)), int(rng.integers(size[1] - width))
    return [left, top, width, height]


def dealt(values: Sequence[Any], turn: int, count: int) -> list[Any]:
    """Hand ``turn`` of ``count`` of values that are dealt like cards."""
    return list(values[turn::count])
