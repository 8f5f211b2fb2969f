"""Fusion: golden values, a naive loop, precision."""

from __future__ import annotations

import pytest
import torch

from mmclipdis.models.detection.fvit.fusion import fuse_scores

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
