"""Affinities within masks: the golden values, and a naive reference in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmclipdis.clip.towers import affinity as module
from mmclipdis.clip.towers.affinity import (
    Guide,
    affinity_rows,
    in_scope,
    mean_cosine,
    mix,
    unit_tokens,
)
from mmclipdis.clip.towers.readout_fields import Affinity

CORRCLIP = Affinity(scale=4.0, scope="masks", merge=0.2)
C1 = [[1, 0], [1, 0.2], [0, 1], [1, 1], [-1, 0], [-1, 0.3]]
LABELS = [1, 1, 2, 0, 3, 4]
MERGED = [10000, 10000, 10001, 0, 10002, 10002]


def tokens(rows: Any, grid: tuple[int, int]) -> Tensor:
    """A map (1, C, gh, gw), float64."""
    return torch.tensor(rows, dtype=torch.float64).T.reshape(1, -1, *grid)


def close(found: Tensor, expected: Any) -> None:
    values = torch.tensor(expected, dtype=found.dtype)
    torch.testing.assert_close(found, values, atol=6e-7, rtol=0)


def matrix(affinity: Affinity, rows: Any, regions: Any) -> Tensor:
    """``W`` (n, n) of one window on one line."""
    unit = unit_tokens(tokens(rows, (1, len(rows))))
    labels = torch.tensor([regions])
    return affinity_rows(affinity, unit, mean_cosine(unit), labels, slice(0, len(rows)))[0]


def test_golden_c2() -> None:
    unit = unit_tokens(tokens(C1, (2, 3)))
    mean = mean_cosine(unit)
    close(mean, [0.148092])
    allowed = in_scope(unit @ unit.mT, mean, torch.tensor([MERGED]), slice(0, 6))[0]
    rows = ["".join(str(int(value)) for value in row) for row in allowed]
    assert rows == ["110100", "110100", "001100", "111100", "000011", "000011"]
    weights = matrix(CORRCLIP, C1, MERGED)
    close(weights[0], [0.447399, 0.413962, 0, 0.138640, 0, 0])
    close(weights[3], [0.145446, 0.239745, 0.145446, 0.469363, 0, 0])
    close(weights[4], [0, 0, 0, 0, 0.542074, 0.457926])
    v = tokens([[1, 0], [0, 1], [2, 0], [0, 3], [1, 1], [-1, 2]], (2, 3))
    guide = Guide(tokens(C1, (2, 3)), torch.tensor(LABELS).view(1, 2, 3))
    expected = [
        *([0.447399, 0.829880], [0.379821, 1.039537], [1.526858, 0.709712]),
        *([0.436337, 1.647834], [0.084148, 1.457926], [-0.084148, 1.542074]),
    ]
    close(mix(CORRCLIP, guide, v)[0], expected)


def test_golden_c3() -> None:
    f = [[1, 0], [1, 1], [0, 1]]
    close(mean_cosine(unit_tokens(tokens(f, (1, 3)))), [0.647603])
    expected = [[0.763429, 0.236571, 0], [0.191312, 0.617376, 0.191312], [0, 0.236571, 0.763429]]
    for label in (0, 7):
        close(matrix(CORRCLIP, f, [label] * 3), expected)


def test_where_all_tokens_are_alike_each_looks_at_itself() -> None:
    close(matrix(CORRCLIP, [[1, 0], [2, 0]], [0, 0]), [[1, 0], [0, 1]])


def naive(affinity: Affinity, f: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """``W`` of one window, by loops; regions are merged already."""
    u = f / np.linalg.norm(f, axis=1, keepdims=True)
    cosines = u @ u.T
    mean, free, count = cosines.mean(), regions.min(), len(f)
    out = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            logit = affinity.scale * (cosines[i, j] - affinity.shift * mean)
            kept = affinity.keep == "all" or logit >= 0
            if affinity.scope == "masks":
                same = regions[i] == regions[j] != free
                either = regions[i] == free or regions[j] == free
                kept = kept and (same or (either and cosines[i, j] > mean))
            if kept or i == j:
                out[i, j] = np.exp(logit)
    return out / out.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("keep", ["all", "positive"])
def test_rows_within_masks_equal_loops(keep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of rows, in batches of windows whose smallest numbers differ."""
    affinity = Affinity(shift=0.4, scale=3.0, keep=keep, scope="masks")
    generator = torch.Generator().manual_seed(1)
    f = torch.randn(3, 5, 4, 6, generator=generator, dtype=torch.float64)
    regions = torch.randint(0, 4, (3, 4, 6), generator=generator)
    regions[1] += 2
    v = torch.randn(3, 7, 4, 6, generator=generator, dtype=torch.float64)
    expected = [
        naive(affinity, one.flatten(1).T.numpy(), labels.flatten().numpy())
        @ values.flatten(1).T.numpy()
        for one, labels, values in zip(f, regions, v, strict=True)
    ]
    for block in (module.ROW_BYTES, 5 * 8 * 3 * 24):
        monkeypatch.setattr(module, "ROW_BYTES", block)
        found = mix(affinity, Guide(f, regions), v)
        torch.testing.assert_close(found, torch.tensor(np.stack(expected)))
    free = mix(Affinity(shift=0.4, scale=3.0, keep=keep), Guide(f), v)
    assert not torch.allclose(found, free)


def test_regions_are_merged_before_they_are_a_scope() -> None:
    f, regions = tokens(C1, (2, 3)), torch.tensor(LABELS).view(1, 2, 3)
    v = torch.randn(1, 3, 2, 3, dtype=torch.float64)
    merged = Guide(f, torch.tensor(MERGED).view(1, 2, 3))
    apart = Affinity(scale=4.0, scope="masks")
    torch.testing.assert_close(mix(CORRCLIP, Guide(f, regions), v), mix(apart, merged, v))
    assert not torch.allclose(mix(CORRCLIP, Guide(f, regions), v), mix(apart, Guide(f, regions), v))


def test_without_masks_it_says_where_they_come_from() -> None:
    v = torch.zeros(1, 3, 2, 3)
    with pytest.raises(ValueError, match=r"needs the masks of the photo.*dict\(type='MaskFolder'"):
        mix(CORRCLIP, Guide(tokens(C1, (2, 3)).float()), v)
