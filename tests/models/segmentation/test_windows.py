"""Windows are placed by mmseg's rule, and cutting and stitching are exact inverses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmclipdis.models.segmentation.windows import (
    coverage,
    cut,
    one_window,
    slide_windows,
    stitch,
)


def mmseg_starts(size: int, crop: int, stride: int) -> list[int]:
    """The loop of mmseg's EncoderDecoder.slide_inference along one axis."""
    starts = []
    for i in range(max(size - crop + stride - 1, 0) // stride + 1):
        end = min(i * stride + crop, size)
        starts.append(max(end - crop, 0))
    return starts


def naive_stitch(scores: torch.Tensor, windows) -> torch.Tensor:
    """Pad every window to the canvas and divide by the summed masks."""
    height, width = windows.size
    total = torch.zeros(scores.shape[1], height, width, dtype=scores.dtype)
    count = torch.zeros(1, height, width, dtype=scores.dtype)
    for score, (y, x) in zip(scores, windows.starts, strict=True):
        pad = (x, width - x - score.shape[-1], y, height - y - score.shape[-2])
        total += F.pad(score, pad)
        count += F.pad(torch.ones_like(score[:1]), pad)
    return total / count


@pytest.mark.parametrize(
    ("size", "crop", "stride", "starts"),
    [
        (597, 448, 224, [0, 149]),
        (896, 224, 224, [0, 224, 448, 672]),
        (448, 448, 224, [0]),
        (300, 448, 224, [0]),
    ],
)
def test_golden_starts(size: int, crop: int, stride: int, starts: list[int]) -> None:
    windows = slide_windows((size, 16), (crop, 16), (stride, 16))
    assert [y for y, _ in windows.starts] == starts


@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    crop=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_every_pixel_is_covered_by_the_windows_of_mmseg(size, crop, data) -> None:
    stride = tuple(data.draw(st.integers(1, c)) for c in crop)
    windows = slide_windows(size, crop, stride)
    rows = mmseg_starts(size[0], crop[0], stride[0])
    columns = mmseg_starts(size[1], crop[1], stride[1])
    assert windows.starts == tuple((y, x) for y in rows for x in columns)
    assert coverage(windows, torch.device("cpu"), torch.float32).min() >= 1


def test_g19_declips_windows_cover_the_photo_and_keep_a_constant() -> None:
    windows = slide_windows((448, 600), (336, 336), (112, 112))
    assert len({y for y, _ in windows.starts}) == 2
    assert len({x for _, x in windows.starts}) == 4
    assert windows.starts[-1] == (112, 264)  # shifted back inside
    assert coverage(windows, torch.device("cpu"), torch.float32).min() >= 1
    constant = torch.full((len(windows), 2, 336, 336), 0.7)
    torch.testing.assert_close(stitch(constant, windows), torch.full((2, 448, 600), 0.7))


def test_stitch_is_the_mean_over_the_covering_windows() -> None:
    torch.manual_seed(0)
    windows = slide_windows((23, 31), (10, 12), (4, 7))
    scores = torch.randn(len(windows), 5, 10, 12, dtype=torch.float64)
    torch.testing.assert_close(stitch(scores, windows), naive_stitch(scores, windows))


def test_stitching_the_cut_image_returns_it() -> None:
    torch.manual_seed(0)
    image = torch.randn(3, 37, 41, dtype=torch.float64)
    windows = slide_windows((37, 41), (16, 16), (8, 8))
    pieces = cut(image, windows)
    assert pieces.shape == (len(windows), 3, 16, 16)
    torch.testing.assert_close(stitch(pieces, windows), image, rtol=0, atol=1e-15)


def test_order_of_windows_does_not_matter() -> None:
    torch.manual_seed(0)
    windows = slide_windows((20, 20), (8, 8), (6, 6))
    scores = torch.randn(len(windows), 2, 8, 8, dtype=torch.float64)
    order = torch.randperm(len(windows)).tolist()
    shuffled = type(windows)(windows.size, windows.crop, tuple(windows.starts[i] for i in order))
    torch.testing.assert_close(stitch(scores[order], shuffled), stitch(scores, windows))


def test_one_window_is_the_image_itself() -> None:
    image = torch.randn(3, 9, 7)
    windows = one_window((9, 7))
    assert windows == slide_windows((9, 7), (100, 100), (50, 50))
    torch.testing.assert_close(stitch(cut(image, windows), windows), image, rtol=0, atol=0)


def test_coverage_made_under_inference_mode_serves_a_backward_pass() -> None:
    windows = slide_windows((11, 11), (6, 6), (3, 3))
    coverage.cache_clear()
    with torch.inference_mode():
        stitch(torch.zeros(len(windows), 1, 6, 6), windows)
    scores = torch.zeros(len(windows), 1, 6, 6, requires_grad=True)
    stitch(scores, windows).sum().backward()
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad.sum(), torch.tensor(121.0))


@pytest.mark.parametrize(
    ("crop", "stride", "message"),
    [
        ((8, 8), (9, 4), "larger than crop"),
        ((0, 8), (1, 1), "crop"),
        ((8, 8), (0, 1), "stride"),
    ],
)
def test_bad_layouts_are_refused(crop, stride, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        slide_windows((32, 32), crop, stride)


def test_wrong_number_of_scores_is_refused() -> None:
    windows = slide_windows((20, 20), (8, 8), (6, 6))
    with pytest.raises(ValueError, match="score maps"):
        stitch(torch.zeros(1, 2, 8, 8), windows)
    with pytest.raises(ValueError, match="the image has"):
        cut(torch.zeros(3, 21, 20), windows)
