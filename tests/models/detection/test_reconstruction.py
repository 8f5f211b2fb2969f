"""The best linear auto-encoder: the optimum of training, its errors, and the middles of boxes."""

from __future__ import annotations

import pytest
import torch

from mmclipdis.models.detection.reconstruction import (
    Moments,
    best_reconstruction,
    centre_features,
)
from tests.faults.endings import raises


def counted(vectors: torch.Tensor) -> Moments:
    moments = Moments(vectors.shape[1])
    for part in vectors.split(7):
        moments.add(part)
    return moments


def test_errors_are_those_of_principal_components() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(100, 6) @ torch.randn(6, 6) + 3
    explained = 0.9
    found = best_reconstruction(counted(vectors), explained)
    centred = vectors.double() - vectors.double().mean(0)
    u, s, v = torch.linalg.svd(centred, full_matrices=False)
    shares = (s.square().cumsum(0) / s.square().sum()).tolist()
    count = next(k for k, share in enumerate(shares, start=1) if share >= explained)
    assert 1 < count < 6 and found.basis.shape == (6, count)
    rest = (u[:, count:] * s[count:]) @ v[count:]
    errors = rest.square().sum(1)
    assert torch.allclose(found.errors(vectors), errors / errors.mean())


def test_no_trained_auto_encoder_is_better() -> None:
    torch.manual_seed(0)
    vectors = (torch.randn(200, 5) @ torch.randn(5, 5)).double()
    found = best_reconstruction(counted(vectors), 0.8)
    best = float(found.errors(vectors).mean()) * found.unit
    count = found.basis.shape[1]
    shapes = ((5, count), (count, 5), (5,))
    parts = [torch.randn(shape, dtype=torch.float64) * 0.3 for shape in shapes]
    for part in parts:
        part.requires_grad_()
    optimizer = torch.optim.Adam(parts, lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        loss = (vectors @ parts[0] @ parts[1] + parts[2] - vectors).square().sum(1).mean()
        loss.backward()
        optimizer.step()
    assert best <= loss.item() < 1.05 * best


def test_middle_of_a_box() -> None:
    maps = torch.zeros(2, 1, 8, 8)
    maps[1, 0, 3:5, 5:7] = 2.0  # cells of 10 px: x from 50 to 70, y from 30 to 50
    rois = torch.tensor([[1.0, 30, 20, 90, 60], [0.0, 30, 20, 90, 60], [1.0, 0, 0, 30, 30]])
    assert centre_features(maps, rois, 10).flatten().tolist() == pytest.approx([2.0, 0.0, 0.0])


@pytest.mark.parametrize("directions", [0, 1])
def test_a_map_that_is_reconstructed_whole(directions: int) -> None:
    vectors = torch.randn(20, directions) @ torch.randn(directions, 4) + 7
    raises("reconstructs all of 20 cells; give less", best_reconstruction, counted(vectors), 0.999)
