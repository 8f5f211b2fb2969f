"""Antialiased resizing against a filter that is written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mmclipdis.clip.towers.positions import _PRODUCTS, POSITION_RULES
from mmclipdis.utils.interpolation import antialiased, by_products


def kernel(mode: str, x: float) -> float:
    x = abs(x)
    if mode == "bilinear":
        return max(0.0, 1 - x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


def axis(mode: str, size: int, out: int) -> torch.Tensor:
    """Weights (out, size) of one axis; the kernel is stretched where the map shrinks."""
    step, stretch = size / out, max(size / out, 1)
    reach = (2 if mode == "bicubic" else 1) * stretch
    weights = torch.zeros(out, size, dtype=torch.float64)
    for i in range(out):
        centre = step * (i + 0.5)
        for j in range(max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), size)):
            weights[i, j] = kernel(mode, (j - centre + 0.5) / stretch)
    return weights / weights.sum(1, keepdim=True)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    "size", [(5, 1), (9, 1), (7, 1), (1, 1), (1, 5), (5, 2), (14, 14), (3, 3)], ids=str
)
def test_every_size_is_the_separable_filter(mode, size):
    """One column, too, where PyTorch mixes up the rows."""
    maps = torch.randn(2, 3, 7, 6, dtype=torch.float64, generator=torch.manual_seed(0))
    expected = axis(mode, 7, size[0]) @ maps @ axis(mode, 6, size[1]).T
    # as the position tables come: channels last
    got = antialiased(maps.contiguous(memory_format=torch.channels_last), size, mode)
    assert got.shape[-2:] == size
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


def plain(mode: str, maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if mode == "antialias":
        return antialiased(maps, size)
    return F.interpolate(maps, size, mode=mode, align_corners=False)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "antialias"])
def test_products_for_sizes_that_are_open_are_what_pytorch_gives(mode: Any) -> None:
    maps = torch.randn(2, 3, 7, 6, dtype=torch.float64, generator=torch.manual_seed(0))
    for size in ((7, 6), (5, 1), (1, 1), (14, 5), (3, 19), (9, 6)):
        got = by_products(maps, size, mode)
        torch.testing.assert_close(got, plain(mode, maps, size), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rule", POSITION_RULES)
def test_position_rules_have_their_products(rule: str) -> None:
    table = torch.randn(1, 3, 7, 6, generator=torch.manual_seed(0))
    for size in ((7, 6), (7, 9), (5, 4), (14, 3)):
        expected = POSITION_RULES[rule](table, size) if size != (7, 6) else table
        got = by_products(table, size, *_PRODUCTS[rule])
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
