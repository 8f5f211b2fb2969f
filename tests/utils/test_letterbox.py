"""Sizes, pixels and padding of letterboxed images; golden values of fact spec G10."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mmclipdis.utils.letterbox import letterbox, letterbox_size, normalised_boxes


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(1, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((640, 480), 560, (560, 420)),
        ((480, 640), 560, (420, 560)),
        ((640, 480), 490, (490, 368)),  # 367.5: halves round to even
        ((213, 240), 224, (199, 224)),
        ((100, 100), 560, (560, 560)),
        ((5000, 3), 560, (560, 1)),  # 0.3 would be nothing
        ((3, 5000), 224, (1, 224)),
    ],
)
def test_the_longest_side_fits_and_both_are_rounded(size, side, expected):
    assert letterbox_size(*size, side) == expected


def test_the_corner_letterbox_pads_right_and_below_with_black():
    image = photo(640, 480)
    square = letterbox(image, 560)
    assert square.shape == (560, 560, 3) and square.dtype == np.uint8
    content = np.asarray(image.resize((560, 420), Image.Resampling.BICUBIC))
    assert np.array_equal(square[:420], content)
    assert not square[420:].any()
    upright = letterbox(photo(480, 640), 560)
    assert upright[:, :420].any() and not upright[:, 420:].any()


def test_the_centre_letterbox_puts_an_odd_pixel_right():
    image = photo(213, 240)
    square = letterbox(image, 224, "centre")
    content = np.asarray(image.resize((199, 224), Image.Resampling.BICUBIC))
    assert not square[:, :12].any() and not square[:, 211:].any()
    assert np.array_equal(square[:, 12:211], content)


def test_the_centre_letterbox_puts_an_odd_pixel_below():
    square = letterbox(photo(240, 213), 224, "centre")
    filled = np.flatnonzero(square.any(axis=(1, 2)))
    assert (filled[0], filled[-1]) == (12, 210)


def test_an_image_of_the_right_size_is_untouched():
    image = photo(32, 32)
    assert np.array_equal(letterbox(image, 32), np.asarray(image))
    assert np.array_equal(letterbox(image, 32, "centre"), np.asarray(image))


def test_boxes_are_in_units_of_the_longer_side():
    boxes = np.array([[0, 0, 640 / 3, 240], [0, 240, 640, 480]])
    result = normalised_boxes(boxes, 640, 480)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, [[0, 0, 1 / 3, 0.375], [0, 0.375, 1, 0.75]], atol=1e-7)
