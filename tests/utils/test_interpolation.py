"""Antialiased resizing against a filter that is written out."""

from __future__ import annotations

import pytest
import torch

from mmclipdis.utils.interpolation import antialiased


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
