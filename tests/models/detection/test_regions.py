"""Embeddings of boxes: golden values, boxes at the border, precision."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mmclipdis.models.detection.regions import region_embeddings


def row(*values):
    return torch.tensor([values])


def golden_map():
    return torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]]])[None]


def test_golden_region():
    found = region_embeddings(golden_map(), row(0.0, 0, 0, 32, 32), 16)
    torch.testing.assert_close(found, row(0.948683, 0.316228), atol=1e-6, rtol=0)


def test_order_of_normalisation():
    maps = golden_map() * torch.tensor([[1.0, 3.0], [1.0, 1.0]])
    rois = row(0.0, 0, 0, 32, 32)
    before = region_embeddings(maps, rois, 16, "before")
    torch.testing.assert_close(before, region_embeddings(golden_map(), rois, 16))
    after = region_embeddings(maps, rois, 16, "after")
    torch.testing.assert_close(after, row(math.sqrt(0.5), math.sqrt(0.5)))


def test_a_map_that_is_not_square_and_another_image():
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 2, 5)
    rois = torch.tensor([[1.0, 32, 14, 48, 28], [0.0, 64, 0, 80, 14]])  # cells (1, 2), (0, 4)
    found = region_embeddings(maps, rois, (14, 16))
    expected = torch.stack([maps[1, :, 1, 2], maps[0, :, 0, 4]])
    torch.testing.assert_close(found, F.normalize(expected, dim=1))


def test_boxes_at_and_beyond_the_border():
    torch.manual_seed(0)
    maps = torch.randn(1, 3, 4, 4)
    rois = torch.tensor(
        [[0.0, -40, -40, 8, 8], [0.0, 500, 500, 600, 600], [0.0, 9, 9, 9, 9], [0.0, 60, 0, 90, 64]]
    )
    found = region_embeddings(maps, rois, 16)
    # only the first cell and its repeated border lie in the first box
    torch.testing.assert_close(found[0], F.normalize(maps[0, :, 0, 0], dim=0))
    assert found[1].tolist() == [0.0, 0.0, 0.0]
    assert found.isfinite().all()
    assert found[3].norm().item() == pytest.approx(1, abs=1e-6)
    assert region_embeddings(maps, rois[:0], 16).shape == (0, 3)


def test_half_maps_are_pooled_in_fp32():
    maps = torch.randn(1, 3, 4, 4).bfloat16()
    rois = row(0.0, 5, 5, 60, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = region_embeddings(maps, rois, 16)
    torch.testing.assert_close(found, region_embeddings(maps.float(), rois, 16))


def test_bad_regions():
    with pytest.raises(ValueError, match="normalize must be"):
        region_embeddings(golden_map(), row(0.0, 0, 0, 1, 1), 16, "never")
    with pytest.raises(ValueError, match=r"RoIs \(n, 5\)"):
        region_embeddings(golden_map(), row(0.0, 0, 1, 1), 16)
