"""NMS of the strongest first finds what mmdet's finds, and looks at few boxes."""

from __future__ import annotations

import pytest
import torch

import mmclipdis  # noqa: F401  (the ops of mmcv)

pytest.importorskip("mmdet")

from mmdet.models.layers import multiclass_nms

from mmclipdis.models.detection import nms as module
from mmclipdis.models.detection.nms import strongest_nms

HARD = {"type": "nms", "iou_threshold": 0.5}


def crowd(count, classes, things=20, dtype=torch.float32):
    """Boxes of whole pixels around ``things`` places, so that the shift by class is exact."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.randint(0, 400, (things, 2), generator=generator)
    side = torch.randint(30, 200, (things, 2), generator=generator)
    places = torch.cat([corner, corner + side], 1)
    noise = torch.randint(-10, 11, (count, 4), generator=generator)
    boxes = places[torch.randint(things, (count,), generator=generator)] + noise
    scores = torch.rand(count, classes + 1, generator=generator, dtype=torch.float64) ** 4
    return boxes.to(dtype), scores.to(torch.promote_types(dtype, torch.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("count", "classes", "threshold", "most"),
    [
        (200, 120, 1e-4, 300),  # all pairs are candidates, more than mmcv's 10,000
        (200, 20, 1e-4, 100),
        (200, 20, 0.9, 100),  # few are
        (300, 1, 1e-4, 20),  # what is left of the first is not enough
        (50, 20, 2.0, 100),  # none is
        (50, 20, 0.0, -1),  # without a limit
        (1, 1, 0.0, 100),
    ],
)
def test_as_in_mmdet(count, classes, threshold, most, dtype):
    boxes, scores = crowd(count, classes, dtype=dtype)
    expected = multiclass_nms(boxes, scores, threshold, HARD, most)
    found = strongest_nms(boxes, scores, threshold, HARD, most)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_more_are_looked_at_if_those_do_not_suffice(monkeypatch):
    looked = []
    plain = module.batched_nms
    monkeypatch.setattr(
        module, "batched_nms", lambda b, *rest: (looked.append(len(b)), plain(b, *rest))[1]
    )
    boxes, scores = crowd(300, 2, things=4)
    found = strongest_nms(boxes, scores, 1e-4, HARD, 8)
    assert looked == [80]
    expected = multiclass_nms(boxes, scores, 1e-4, HARD, 8)
    assert torch.equal(found[0], expected[0])
    boxes, scores = crowd(300, 2, things=1)  # 600 pairs, of which NMS leaves few
    looked.clear()
    found = strongest_nms(boxes, scores, 1e-4, {**HARD, "iou_threshold": 0.3}, 8)
    assert looked == [80, 320, int((scores[:, :-1] > 1e-4).sum())]
    assert len(found[0]) < 8


@pytest.mark.parametrize("min_score", [1e-3, 0.0])
def test_soft_nms_as_in_mmdet(min_score):
    """Its scores fall below those of pairs not looked at first, be they as many as asked."""
    nms = {"type": "soft_nms", "iou_threshold": 0.3, "min_score": min_score}
    crowded, _ = crowd(200, 1, things=1)
    alone = torch.arange(30.0)[:, None] * 20 + torch.tensor([700.0, 700, 710, 710])
    boxes = torch.cat([crowded, alone])
    scores = torch.cat([torch.linspace(0.8, 0.9, 200), torch.linspace(0.6, 0.7, 30)])
    scores = torch.stack([scores, torch.zeros_like(scores)], 1)
    expected = multiclass_nms(boxes, scores, 1e-4, nms, 10)
    assert (expected[0][:, 0] >= 700).sum() == 9
    found = strongest_nms(boxes, scores, 1e-4, nms, 10)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_equal_scores_at_the_cut_are_all_looked_at():
    """Ten boxes of one score, of which any might be the one that is left."""
    boxes = torch.arange(40.0)[:, None] * 20 + torch.tensor([0.0, 0, 10, 10])
    scores = torch.full((40, 3), 0.5)
    found, labels = strongest_nms(boxes, scores, 0.1, HARD, 2)
    expected = multiclass_nms(boxes, scores, 0.1, HARD, 2)
    assert torch.equal(found, expected[0]) and torch.equal(labels, expected[1])


def test_the_million_pairs_of_lvis_are_not_expanded(monkeypatch):
    looked = []
    plain = module.batched_nms
    monkeypatch.setattr(
        module, "batched_nms", lambda b, *rest: (looked.append(len(b)), plain(b, *rest))[1]
    )
    boxes, scores = crowd(1000, 1203)
    assert (scores[:, :-1] > 1e-4).float().mean() > 0.85
    found, _ = strongest_nms(boxes, scores, 1e-4, HARD, 300)
    assert len(found) == 300
    assert looked == [3000]
