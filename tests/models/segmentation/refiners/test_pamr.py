"""PAMR has its published numbers, equals the stacked form, and looks at queries one by one."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmclipdis.models.segmentation import PAMR
from mmclipdis.models.segmentation.refiners import pamr

F64 = torch.float64

#: Image, dilations, steps, masks, refined masks.
GOLDEN: dict[str, tuple[Any, Any, int, Any, Any]] = {
    "one channel": (
        [[[0, 0, 1], [0, 1, 1], [0, 0, 1]]],
        (1,),
        1,
        [[[1, 0, 0], [0, 0, 0], [0, 0, 1]], [[0, 1, 0], [1, 0, 1], [0, 1, 0]]],
        [
            [[0.428571, 0.5, 0], [0.285714, 0.333333, 0.333333], [0, 0, 0.5]],
            [
                [0.571429, 0.5, 0.333333],
                [0.428571, 0.333333, 0.166667],
                [0.571429, 0.5, 0.333333],
            ],
        ],
    ),
    "three channels, two dilations, three steps": (
        [
            [[0, 1, 2, 3], [1, 2, 3, 4]],
            [[0, 0, 1, 1], [1, 1, 0, 0]],
            [[2, 2, 2, 2], [0, 0, 0, 0]],
        ],
        (1, 2),
        3,
        [[[1, 0, 0, 0], [0, 0, 0, 2]]],
        [[[0.976251, 0.293928, 0.000039, 0.000001], [0.000001, 0.000077, 0.587854, 1.952503]]],
    ),
    "constant image": ([[[7, 7], [7, 7]]], (1,), 1, [[[1, 2], [3, 4]]], [[[2.125, 2.375],
                                                                         [2.625, 2.875]]]),
}  # fmt: skip


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_values(case: str) -> None:
    """To the printed digits; single precision has them but for its own rounding."""
    image, dilations, steps, masks, want = GOLDEN[case]

    def found(dtype: torch.dtype) -> Tensor:
        refine = PAMR(steps, dilations).prepare(torch.tensor(image, dtype=dtype))
        return refine(torch.tensor(masks, dtype=dtype))

    torch.testing.assert_close(found(F64), torch.tensor(want, dtype=F64), rtol=0, atol=6e-7)
    torch.testing.assert_close(found(torch.float32).double(), found(F64), rtol=6e-7, atol=6e-7)


def stacked(photo: Tensor, scores: Tensor, steps: int, dilations: tuple[int, ...]) -> Tensor:
    """Pixel by pixel, from the formula: all neighbours of a pixel in a list."""
    height, width = photo.shape[1:]

    def around(maps: Tensor, y: int, x: int, centre: bool) -> Tensor:
        found = []
        for d in dilations:
            for dy in (-d, 0, d):
                for dx in (-d, 0, d):
                    if centre or dy or dx:
                        row = min(max(y + dy, 0), height - 1)
                        found.append(maps[:, row, min(max(x + dx, 0), width - 1)])
        return torch.stack(found, dim=1)

    weights = {}
    for y in range(height):
        for x in range(width):
            deviation = around(photo, y, x, centre=True).std(dim=1, unbiased=True)
            unlike = (around(photo, y, x, centre=False) - photo[:, y, x, None]).abs()
            weights[y, x] = (-unlike / (1e-8 + 0.1 * deviation[:, None])).mean(0).softmax(0)
    for _ in range(steps):
        last = scores
        scores = torch.empty_like(last)
        for (y, x), weight in weights.items():
            scores[:, y, x] = around(last, y, x, centre=False) @ weight
    return scores


@pytest.mark.parametrize(
    ("size", "steps", "dilations"),
    [((7, 9), 2, (1, 2)), ((5, 4), 3, (8, 16)), ((6, 11), 1, (3,)), ((1, 6), 2, (1, 4))],
    ids=str,
)
def test_equals_the_formula_pixel_by_pixel(size, steps, dilations) -> None:
    torch.manual_seed(0)
    photo, scores = torch.randn(3, *size, dtype=F64), torch.randn(4, *size, dtype=F64)
    kept = scores.clone()
    found = PAMR(steps, dilations).prepare(photo)(scores)
    torch.testing.assert_close(found, stacked(photo, kept, steps, dilations), rtol=0, atol=1e-12)
    assert torch.equal(scores, kept)


def test_scores_of_another_size_are_resized_with_aligned_corners() -> None:
    """As in the released code; a ramp stays one, from corner to corner."""
    photo, refine = torch.rand(3, 7, 9, dtype=F64), PAMR(2, (1, 2))
    rows, columns = torch.linspace(0, 3, 7, dtype=F64), torch.linspace(0, 2, 9, dtype=F64)
    ramp = rows[:, None] + 10 * columns
    small = torch.arange(4, dtype=F64)[:, None] + 10 * torch.arange(3, dtype=F64)
    found, want = (refine.prepare(photo)(scores[None]) for scores in (small, ramp))
    torch.testing.assert_close(found, want, rtol=0, atol=1e-12)


@given(seed=st.integers(0, 300), gain=st.sampled_from([-3.0, 0.5, 58.4]), chunk=st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_colours_may_be_scaled_and_queries_come_in_chunks(seed: int, gain: float, chunk: int):
    generator = torch.Generator().manual_seed(seed)
    photo = torch.randn(3, 9, 12, dtype=F64, generator=generator)
    scores = torch.randn(5, 9, 12, dtype=F64, generator=generator)
    refiner = PAMR(steps=3, dilations=(1, 4))
    want = refiner.prepare(photo)(scores)
    shift = torch.tensor([0.3, -7.0, 120.0], dtype=F64).view(3, 1, 1)
    affine = refiner.prepare(gain * photo + shift)
    torch.testing.assert_close(affine(scores), want, rtol=0, atol=1e-4)  # up to the 1e-8
    parts = refiner.prepare(photo)
    pieces = torch.cat([parts(piece) for piece in scores.split(chunk)])
    torch.testing.assert_close(pieces, want, rtol=0, atol=1e-13)
    torch.testing.assert_close(parts(40 * scores), 40 * want, rtol=1e-12, atol=1e-12)
    assert parts(torch.ones_like(scores)).allclose(torch.ones_like(scores))


def test_strips_of_rows_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    photo, scores = torch.rand(3, 23, 6), torch.rand(2, 23, 6)
    refiner = PAMR(steps=2, dilations=(1, 5))
    want = refiner.prepare(photo)(scores)
    for strip in (1, 60):
        monkeypatch.setattr(pamr, "STRIP", strip)
        torch.testing.assert_close(refiner.prepare(photo)(scores), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
def test_runs_in_single_precision_at_least(dtype: torch.dtype) -> None:
    photo, scores = torch.rand(3, 8, 8).to(dtype), torch.rand(2, 8, 8).to(dtype)
    refiner = PAMR(steps=2, dilations=(1,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = refiner.prepare(photo)(scores)
    assert found.dtype == torch.float32
    want = refiner.prepare(photo.float())(scores.float())
    torch.testing.assert_close(found, want)


def test_keeps_its_settings_when_it_is_copied_and_pickled() -> None:
    refiner = PAMR(steps=3, dilations=[2, 4])
    for other in (copy.deepcopy(refiner), pickle.loads(pickle.dumps(refiner))):
        assert (other.steps, other.dilations) == (3, (2, 4))


def test_a_dilation_beyond_the_photo_reads_its_edge_and_costs_no_more() -> None:
    photo, scores = torch.rand(3, 5, 7, dtype=F64), torch.rand(2, 5, 7, dtype=F64)
    far = PAMR(steps=3, dilations=(1, 9)).prepare(photo)(scores)
    assert torch.equal(far, PAMR(steps=3, dilations=(1, 10**9)).prepare(photo)(scores))
    assert torch.equal(far, PAMR(steps=3, dilations=(1, 7)).prepare(photo)(scores))
