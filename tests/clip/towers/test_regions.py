"""Maps of masks: nearest by integers, and regions that look alike become one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.clip.towers.regions import merge_regions, resize_nearest


def unit(rows: Any) -> Tensor:
    """Unit tokens (1, n, C), float64."""
    return F.normalize(torch.tensor(rows, dtype=torch.float64), dim=-1)[None]


def naive(u: np.ndarray, regions: np.ndarray, eps: float) -> np.ndarray:
    """One window by loops: means, cosines, and a search from every region."""
    labels = sorted(set(regions.tolist()))
    if len(labels) <= 2:
        return regions
    means = []
    for label in labels[1:]:
        mean = np.mean([u[i] for i in range(len(u)) if regions[i] == label], axis=0)
        means.append(mean / np.linalg.norm(mean))
    cosines = np.array([[a @ b for b in means] for a in means])
    linked = cosines.max() - cosines <= eps
    component: dict[int, int] = {}
    count = 0
    for start in range(len(means)):
        if start in component:
            continue
        queue = [start]
        while queue:
            here = queue.pop()
            if here not in component:
                component[here] = count
                queue += [j for j in range(len(means)) if linked[here, j]]
        count += 1
    names = {label: 10000 + component[i] for i, label in enumerate(labels[1:])}
    return np.array([names.get(label, label) for label in regions.tolist()])


def test_nearest_takes_the_floor() -> None:
    assert resize_nearest(torch.arange(6)[None], (1, 4)).tolist() == [[0, 1, 3, 4]]
    assert resize_nearest(torch.arange(4)[None], (1, 6)).tolist() == [[0, 0, 1, 2, 2, 3]]
    rows = resize_nearest(torch.arange(2 * 6 * 5).view(2, 6, 5), (4, 5))
    assert rows[1, :, 2].tolist() == [30 + 5 * i + 2 for i in (0, 1, 3, 4)]


def test_nearest_has_no_rounding_at_any_size() -> None:
    for before in (3, 7, 49, 333, 1999):
        for after in range(1, 2 * before, max(1, before // 9)):
            found = resize_nearest(torch.arange(before)[None], (1, after))[0].tolist()
            assert found == [i * before // after for i in range(after)]


def test_golden_c1() -> None:
    f = unit([[1, 0], [1, 0.2], [0, 1], [1, 1], [-1, 0], [-1, 0.3]])
    merged = merge_regions(f, torch.tensor([[1, 1, 2, 0, 3, 4]]), 0.2)
    assert merged.tolist() == [[10000, 10000, 10001, 0, 10002, 10002]]


def test_golden_chain() -> None:
    angles = [math.radians(angle) for angle in (0, 30, 60, 120, 180)]
    f = unit([[0.3, 0.4], *([math.cos(a), math.sin(a)] for a in angles)])
    merged = merge_regions(f, torch.tensor([[0, 1, 2, 3, 4, 5]]), 0.2)
    assert merged.tolist() == [[0, 10000, 10000, 10000, 10001, 10002]]


@pytest.mark.parametrize("eps", [0.0, 0.05, 0.2, 0.7, 2.5])
def test_windows_of_a_batch_equal_each_alone_by_loops(eps: float) -> None:
    generator = torch.Generator().manual_seed(3)
    windows, tokens = 6, 40
    centres = torch.randn(windows, 5, 6, generator=generator, dtype=torch.float64)
    kinds = torch.randint(0, 5, (windows, tokens), generator=generator)
    noise = torch.randn(windows, tokens, 6, generator=generator, dtype=torch.float64)
    u = F.normalize(centres.gather(1, kinds[..., None].expand(-1, -1, 6)) + 0.6 * noise, dim=-1)
    regions = 7 * torch.randint(-1, 14, (windows, tokens), generator=generator)
    regions[1], regions[2] = 4, torch.arange(tokens) % 2  # no scope at all, one mask
    merged = merge_regions(u, regions, eps)
    for window in range(windows):
        expected = naive(u[window].numpy(), regions[window].numpy(), eps)
        assert merged[window].tolist() == expected.tolist()
    counts = [len(set(row.tolist())) for row in merged]
    assert counts[1:3] == [1, 2]
    if eps in (0.05, 0.2):  # some are merged, and not all
        assert 2 < min(counts[3:]) < max(len(set(row.tolist())) for row in regions)


def test_padding_is_a_region_like_any_other() -> None:
    f = unit([[1, 0], [1, 0.1], [0, 1], [1, 1]])
    merged = merge_regions(f, torch.tensor([[3, 10000, 5, 0]]), 0.2)
    assert merged.tolist() == [[10000, 10000, 10001, 0]]


def test_numbers_of_masks_above_those_of_components_stay_apart() -> None:
    f = unit([[1, 0], [0, 1], [-1, 0], [0, -1]])
    merged = merge_regions(f, torch.tensor([[10001, 20000, 30000, 40000]]), 0.2)
    assert merged.tolist() == [[10001, 10002, 10003, 10004]]


def test_autocast_merges_no_others() -> None:
    """Steps of bfloat16 near 1 are 0.004."""
    angles = [math.acos(cosine) for cosine in (1.0, 0.9985)]
    f = unit([[0.3, 0.4], *([math.cos(a), math.sin(a)] for a in angles)]).float()
    regions = torch.tensor([[0, 1, 2]])
    with torch.autocast("cpu", torch.bfloat16):
        assert merge_regions(f, regions, 0.001).tolist() == [[0, 10000, 10001]]
        assert merge_regions(f, regions, 0.002).tolist() == [[0, 10000, 10000]]
