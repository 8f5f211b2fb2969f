"""Fusion and regions: golden values, naive loops, boxes at the border, precision."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mmclipdis.models.detection.fvit.fusion import fuse_scores, vlm_region_features

NOVEL = torch.tensor([False, True])


def row(*values):
    return torch.tensor([values])


def test_golden_fusion():
    p_det, p_vlm = row(0.6, 0.1, 0.3), row(0.2, 0.7, 0.1)
    fused = fuse_scores(p_det, p_vlm, NOVEL, 0.1, 0.8)
    torch.testing.assert_close(fused, row(0.537575, 0.474328, 0.268788), atol=1e-6, rtol=0)
    torch.testing.assert_close(fuse_scores(p_det, p_vlm, NOVEL, 0, 0), p_det)
    torch.testing.assert_close(fuse_scores(p_det, p_vlm, NOVEL, 1, 1), p_vlm)


@pytest.mark.parametrize(
    ("temperature", "alpha", "beta", "expected"),
    [
        (75, 0.1, 0.8, (0.589820, 0.357787, 0.053507)),
        (45, 0.1, 0.8, (0.700739, 0.336459, 0.067500)),
        (120, 0.2, 0.2, (0.221299, 0.017107, 0.018532)),
    ],
)
def test_golden_path_from_cosines(temperature, alpha, beta, expected):
    p_det = (50 * row(0.30, 0.20, 0.25)).softmax(1)
    p_vlm = (temperature * row(0.22, 0.28, 0.20)).softmax(1)
    torch.testing.assert_close(p_det, row(0.918423, 0.006188, 0.075389), atol=1e-6, rtol=0)
    fused = fuse_scores(p_det, p_vlm, NOVEL, alpha, beta)
    torch.testing.assert_close(fused, row(*expected), atol=1e-6, rtol=0)


def test_fusion_equals_a_naive_loop():
    torch.manual_seed(0)
    p_det, p_vlm = (torch.randn(6, 8, dtype=torch.float64).softmax(1) for _ in range(2))
    novel = torch.rand(7) > 0.5
    fused = fuse_scores(p_det, p_vlm, novel, 0.3, 0.6)
    for i in range(6):
        for c in range(8):
            weight = 0.6 if c < 7 and novel[c] else 0.3
            one = p_det[i, c].item() ** (1 - weight) * p_vlm[i, c].item() ** weight
            assert fused[i, c].item() == pytest.approx(one, abs=1e-14)


def test_half_types_are_fused_in_fp32():
    half = torch.full((1, 3), 1 / 3).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fused = fuse_scores(half, half, NOVEL, 0.1, 0.8)
    assert fused.dtype == torch.float32
    torch.testing.assert_close(fused, half.float(), atol=1e-6, rtol=0)


def test_a_probability_that_underflowed_does_not_decide_where_it_has_no_weight():
    fused = fuse_scores(row(0.5, 0.5, 0.0), row(0.0, 1.0, 0.0), NOVEL, 0.0, 1.0)
    assert fused.tolist() == [[0.5, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("shapes", "alpha", "message"),
    [
        (((2, 3), (2, 4), (2,)), 0.1, "twice"),
        (((2, 3), (2, 3), (3,)), 0.1, "twice"),
        (((2, 3), (2, 3), (2,)), 1.5, "alpha must be in"),
    ],
)
def test_bad_fusion(shapes, alpha, message):
    p_det, p_vlm, novel = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        fuse_scores(p_det, p_vlm, novel.bool(), alpha, 0.5)


def golden_map():
    return torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]]])[None]


def test_golden_region():
    found = vlm_region_features(golden_map(), row(0.0, 0, 0, 32, 32), 16)
    torch.testing.assert_close(found, row(0.948683, 0.316228), atol=1e-6, rtol=0)


def test_order_of_normalisation():
    maps = golden_map() * torch.tensor([[1.0, 3.0], [1.0, 1.0]])
    rois = row(0.0, 0, 0, 32, 32)
    before = vlm_region_features(maps, rois, 16, "before")
    torch.testing.assert_close(before, vlm_region_features(golden_map(), rois, 16))
    after = vlm_region_features(maps, rois, 16, "after")
    torch.testing.assert_close(after, row(math.sqrt(0.5), math.sqrt(0.5)))


def test_a_map_that_is_not_square_and_another_image():
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 2, 5)
    rois = torch.tensor([[1.0, 32, 14, 48, 28], [0.0, 64, 0, 80, 14]])  # cells (1, 2), (0, 4)
    found = vlm_region_features(maps, rois, (14, 16))
    expected = torch.stack([maps[1, :, 1, 2], maps[0, :, 0, 4]])
    torch.testing.assert_close(found, F.normalize(expected, dim=1))


def test_boxes_at_and_beyond_the_border():
    torch.manual_seed(0)
    maps = torch.randn(1, 3, 4, 4)
    rois = torch.tensor(
        [[0.0, -40, -40, 8, 8], [0.0, 500, 500, 600, 600], [0.0, 9, 9, 9, 9], [0.0, 60, 0, 90, 64]]
    )
    found = vlm_region_features(maps, rois, 16)
    # only the first cell and its repeated border lie in the first box
    torch.testing.assert_close(found[0], F.normalize(maps[0, :, 0, 0], dim=0))
    assert found[1].tolist() == [0.0, 0.0, 0.0]
    assert found.isfinite().all()
    assert found[3].norm().item() == pytest.approx(1, abs=1e-6)
    assert vlm_region_features(maps, rois[:0], 16).shape == (0, 3)


def test_half_maps_are_pooled_in_fp32():
    maps = torch.randn(1, 3, 4, 4).bfloat16()
    rois = row(0.0, 5, 5, 60, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = vlm_region_features(maps, rois, 16)
    torch.testing.assert_close(found, vlm_region_features(maps.float(), rois, 16))


def test_bad_regions():
    with pytest.raises(ValueError, match="normalize must be"):
        vlm_region_features(golden_map(), row(0.0, 0, 0, 1, 1), 16, "never")
    with pytest.raises(ValueError, match=r"RoIs \(n, 5\)"):
        vlm_region_features(golden_map(), row(0.0, 0, 1, 1), 16)
