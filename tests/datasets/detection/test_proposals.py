"""Which proposals become pseudo boxes: against loops, and filter by filter."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from mmclipdis.datasets.detection.proposals import (
    ProposalFilters,
    best_of_all,
    keep_proposals,
    random_ground,
)

Box = list[float]
SIZE = 200, 300


def iou(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return width * height / (sum(area) - width * height)


def naive(
    boxes: list[Box], scores: list[float], known: list[Box], filters: ProposalFilters
) -> tuple[list[int], Counter[str]]:
    order = sorted(range(len(boxes)), key=lambda i: -scores[i])  # stable
    gone: Counter[str] = Counter()
    shaped = []
    for i in order:
        width, height = boxes[i][2] - boxes[i][0], boxes[i][3] - boxes[i][1]
        if width * height > filters.max_share * SIZE[0] * SIZE[1]:
            gone["too large"] += 1
        elif width * height < filters.min_area:
            gone["too small"] += 1
        elif max(width, height) > filters.max_aspect * min(width, height):
            gone["too long"] += 1
        else:
            shaped.append(i)
    apart: list[int] = []
    for i in shaped:
        if any(iou(boxes[i], boxes[j]) > filters.nms_iou for j in apart):
            gone["on a better one"] += 1
        else:
            apart.append(i)
    free = [i for i in apart if all(iou(boxes[i], k) <= filters.known_iou for k in known)]
    gone["on a known box"] += len(apart) - len(free)
    gone["beyond the number of an image"] += len(free[filters.per_image :])
    return free[: filters.per_image], gone


def drawn(count: int, generator: torch.Generator) -> Tensor:
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([250.0, 150.0])
    side = torch.rand(count, 2, generator=generator) ** 2 * torch.tensor([300.0, 200.0]) + 2
    end = torch.minimum(corner + side, torch.tensor([300.0, 200.0]))
    return torch.cat([corner, end], dim=1)


@pytest.mark.parametrize("seed", range(6))
def test_what_stays_is_what_loops_keep(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes, known = drawn(150, generator), drawn(3, generator)
    scores = (torch.rand(150, generator=generator) * 20).round() / 20  # with ties
    filters = ProposalFilters(min_area=200, per_image=6, max_share=0.4)
    places, gone = keep_proposals(boxes, scores, known, SIZE, filters)
    kept, why = naive(boxes.tolist(), scores.tolist(), known.tolist(), filters)
    assert places.tolist() == kept
    assert +gone == +why
    assert len(places) + gone.total() == 150


def one(box: Box, known: list[Box] | None = None, **options: float) -> bool:
    filters = ProposalFilters(**options)  # type: ignore[arg-type]
    boxes, others = torch.tensor([box]), torch.tensor(known or []).reshape(-1, 4)
    return len(keep_proposals(boxes, torch.tensor([0.5]), others, SIZE, filters)[0]) == 1


def test_each_limit_at_its_place() -> None:
    assert one([0.0, 0, 50, 40]) and not one([0.0, 0, 50, 39.9])  # 2000 square pixels
    assert one([0.0, 0, 160, 40]) and not one([0.0, 0, 161, 40])  # four times as long
    assert one([0.0, 0, 40, 160]) and not one([0.0, 0, 40, 161])
    assert one([0.0, 0, 294, 200]) and not one([0.0, 0, 295, 200])  # 0.98 of the image
    whole = [0.0, 0, 100, 100]
    assert one(whole, [[0.0, 0, 100, 29]]) and not one(whole, [[0.0, 0, 100, 31]])  # IoU 0.3
    assert one(whole, [[0.0, 0, 100, 31]], known_iou=0.32)


def test_no_proposal() -> None:
    places, gone = keep_proposals(
        torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, 4), SIZE, ProposalFilters()
    )
    assert len(places) == 0 and gone.total() == 0


@pytest.mark.parametrize(
    ("share", "kept"), [(0.3, [1, 3, 5]), (0.25, [1, 3]), (1.0, list(range(10))), (0.01, [1])]
)
def test_the_best_of_all(share: float, kept: list[int]) -> None:
    scores = torch.tensor([0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.7, 0.1, 0.0, 0.05])
    assert best_of_all(scores, share).tolist() == kept


def test_ground_touches_no_known_box_and_lies_inside() -> None:
    generator = torch.Generator().manual_seed(0)
    known = torch.tensor([[0.0, 0, 150, 200]])
    sides = torch.tensor([[40.0, 20.0], [500.0, 10.0], [30.0, 90.0]])
    boxes = random_ground(sides, known, SIZE, 30, generator)
    assert len(boxes) == 30
    assert bool((boxes[:, 0] >= 150).all())
    assert bool((boxes[:, 2] <= 300 + 1e-3).all()) and bool((boxes[:, 3] <= 200 + 1e-3).all())
    sizes = {tuple(side) for side in (boxes[:, 2:] - boxes[:, :2]).round().tolist()}
    assert sizes == {(40.0, 20.0), (30.0, 90.0)}
    full = torch.tensor([[0.0, 0, 300, 200]])
    assert len(random_ground(sides, full, SIZE, 30, generator)) == 0
