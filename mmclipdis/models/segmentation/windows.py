"""Sliding windows: where they start, how they are cut, how their scores are put back together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from typing import Any

import torch
from torch import Tensor

Size = tuple[int, int]
#: Pixels added on the (left, right, top, bottom).
Padding = tuple[int, int, int, int]
NO_PADDING: Padding = (0, 0, 0, 0)


@dataclass(frozen=True)
class Windows:
    """A grid of equally large windows over an image.

    Attributes:
        size: (height, width) of the image in pixels.
        crop: (height, width) of every window in pixels; never larger than ``size``.
        starts: (y, x) of the top-left pixel of each window, row by row.
    """

    size: Size
    crop: Size
    starts: tuple[Size, ...]

    def __len__(self) -> int:
        return len(self.starts)

    def slices(self) -> Iterator[tuple[slice, slice]]:
        """Yield the (rows, columns) that each window covers."""
        height, width = self.crop
        for y, x in self.starts:
            yield slice(y, y + height), slice(x, x + width)


def pair(value: Any, what: str) -> Size:
    """Return ``value`` as (height, width), refusing anything that is not one or two ints >= 1."""
    listed = isinstance(value, Iterable) and not isinstance(value, str)
    pair: Sequence[Any] = tuple(value) if listed else (value, value)
    if len(pair) != 2 or any(not isinstance(v, Real) or float(v) % 1 or v < 1 for v in pair):
        raise ValueError(f"{what} must be a positive int or (height, width), got {value!r}")
    return int(pair[0]), int(pair[1])


def _axis_starts(size: int, crop: int, stride: int) -> list[int]:
    """Starts along one axis: every ``stride`` pixels, the last window shifted back inside."""
    count = max(size - crop + stride - 1, 0) // stride + 1
    return [max(min(i * stride, size - crop), 0) for i in range(count)]


def slide_windows(size: int | Size, crop: int | Size, stride: int | Size) -> Windows:
    """Place windows by mmseg's slide rule: ``n = max(size - crop + stride - 1, 0) // stride + 1``.

    The last window of a row or column is shifted back so that it ends at the border; hence all
    windows of an image have the same size and can be batched. A crop larger than the image is cut
    to the image.

    Args:
        size: image (height, width) in pixels.
        crop: window (height, width) in pixels.
        stride: step (y, x) in pixels; at most ``crop``, or pixels between windows had no score.

    Raises:
        ValueError: a value below 1, or a stride larger than the crop.
    """
    size, crop, stride = (
        pair(size, "image size"),
        pair(crop, "crop"),
        pair(stride, "stride"),
    )
    if stride[0] > crop[0] or stride[1] > crop[1]:
        raise ValueError(
            f"stride {stride} is larger than crop {crop}: pixels between windows would be left "
            "without a score; choose stride <= crop"
        )
    rows = _axis_starts(size[0], crop[0], stride[0])
    columns = _axis_starts(size[1], crop[1], stride[1])
    fitted = (min(crop[0], size[0]), min(crop[1], size[1]))
    return Windows(size, fitted, tuple((y, x) for y in rows for x in columns))


def one_window(size: int | Size) -> Windows:
    """Return the single window that covers the whole image of (height, width) ``size``."""
    size = pair(size, "image size")
    return Windows(size, size, ((0, 0),))


def symmetric_padding(size: Size, multiple: Size) -> Padding:
    """Padding (left, right, top, bottom) to a multiple; of an odd amount the rest goes right/below.

    307 rows with patch 16: 6 above, 7 below.
    """
    vertical, horizontal = -size[0] % multiple[0], -size[1] % multiple[1]
    left, top = horizontal // 2, vertical // 2
    return left, horizontal - left, top, vertical - top


def cut(image: Tensor, windows: Windows) -> Tensor:
    """Cut an image (C, H, W) into its windows (n, C, h, w), n = ``len(windows)``.

    Raises:
        ValueError: the image is not as large as ``windows.size``.
    """
    if tuple(image.shape[-2:]) != windows.size:
        raise ValueError(
            f"windows were placed on {windows.size} pixels, the image has {tuple(image.shape[-2:])}"
        )
    return torch.stack([image[..., rows, columns] for rows, columns in windows.slices()])


@lru_cache(maxsize=64)
def coverage(windows: Windows, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return how many windows cover each pixel, (H, W); computed once for each layout."""
    # A tensor made under inference_mode could not take part in a later backward pass.
    with torch.inference_mode(False):
        counts = torch.zeros(windows.size, device=device, dtype=dtype)
        for rows, columns in windows.slices():
            counts[rows, columns] += 1
    return counts


def stitch(scores: Tensor, windows: Windows) -> Tensor:
    """Average window scores (n, K, h, w) into one canvas (K, H, W).

    ``out[k, p] = mean over the windows that cover p of scores[window, k, p]``. Each window is added
    in place to its part of the canvas; nothing is padded to the canvas size.

    Raises:
        ValueError: number or size of the score maps does not match ``windows``.
    """
    expected = (len(windows), *windows.crop)
    if (scores.shape[0], *scores.shape[-2:]) != expected:
        raise ValueError(
            f"expected {expected[0]} score maps of {windows.crop} pixels, got "
            f"{scores.shape[0]} of {tuple(scores.shape[-2:])}"
        )
    if len(windows) == 1:
        return scores[0]
    canvas = scores.new_zeros((scores.shape[1], *windows.size))
    for number, score in enumerate(scores):
        add_window(canvas, score, windows, number)
    return mean_of_windows(canvas, windows)


def add_window(canvas: Tensor, score: Tensor, windows: Windows, number: int) -> None:
    """Add the map (K, h, w) of one of the windows to a canvas (K, H, W), in place."""
    (y, x), (height, width) = windows.starts[number], windows.crop
    canvas[:, y : y + height, x : x + width] += score


def mean_of_windows(canvas: Tensor, windows: Windows) -> Tensor:
    """A canvas that all windows were added to, over how many of them cover each place."""
    return canvas / coverage(windows, canvas.device, canvas.dtype)
