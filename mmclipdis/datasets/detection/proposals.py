"""Which class-agnostic proposals become pseudo boxes.

Source: MEPU (open-world detection), steps (b) and (c) of its recipe, whose thresholds are the
defaults; those of OV-DQUO are not published.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou, nms


@dataclass(frozen=True)
class ProposalFilters:
    """What a proposal must be, and how many are taken.

    Attributes:
        max_share: Largest share of the image's area.
        min_area: Smallest area, in square pixels of the photo.
        max_aspect: Longest side over the shortest.
        nms_iou: Of two that overlap by more, the one with the lower score goes.
        known_iou: One that overlaps a known box by more goes.
        per_image: Most an image has; the best.
        best: Share of all that are left after that; the best of all images together.
    """

    max_share: float = 0.98
    min_area: float = 2000.0
    max_aspect: float = 4.0
    nms_iou: float = 0.3
    known_iou: float = 0.3
    per_image: int = 10
    best: float = 0.3


def keep_proposals(
    boxes: Tensor,
    scores: Tensor,
    known: Tensor,
    size: tuple[int, int],
    filters: ProposalFilters,
) -> tuple[Tensor, Counter[str]]:
    """Proposals of one image that are left, by falling score.

    The order of the filters is that of the recipe: shape, NMS, known boxes, number. Equal scores
    stay in the order in which they come.

    Args:
        boxes: (n, 4), x0, y0, x1, y1 in pixels, inside of the image.
        scores: (n,).
        known: Boxes of known classes (m, 4).
        size: Height and width of the image, in pixels.
        filters: See :class:`ProposalFilters`; all but ``best``.

    Returns:
        Places (k,) of the proposals that stay, and how many went, by reason.
    """
    gone: Counter[str] = Counter()
    places = scores.argsort(descending=True, stable=True)

    def leave(stay: Tensor, why: str) -> None:
        nonlocal places
        gone[why] += len(places) - len(stay)
        places = stay

    width, height = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).unbind(1)
    area = width * height
    aspect = torch.maximum(width, height) / torch.minimum(width, height).clamp(min=1e-9)
    small, large = area < filters.min_area, area > filters.max_share * size[0] * size[1]
    long = aspect > filters.max_aspect
    for wrong, why in ((large, "too large"), (small, "too small"), (long, "too long")):
        leave(places[~wrong[places]], why)
    # Places stand for scores: NMS does not say which of two equal ones it takes.
    rank = torch.arange(len(places), 0, -1, dtype=torch.float64, device=boxes.device)
    leave(places[nms(boxes[places].double(), rank, filters.nms_iou)], "on a better one")
    if len(known) and len(places):
        overlap = box_iou(boxes[places].double(), known.double()).amax(1)
        leave(places[overlap <= filters.known_iou], "on a known box")
    leave(places[: filters.per_image], "beyond the number of an image")
    return places, gone


def best_of_all(scores: Tensor, share: float) -> Tensor:
    """Places (k,), ascending, of the best share of all scores (n,); at least one.

    Equal scores are taken in the order in which they come.
    """
    count = min(len(scores), max(1, math.floor(share * len(scores) + 1e-9)))
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def random_ground(
    sides: Tensor,
    known: Tensor,
    size: tuple[int, int],
    count: int,
    generator: torch.Generator,
    tries: int = 20,
) -> Tensor:
    """Random boxes (k, 4) of an image that touch no known box; k is at most ``count``.

    Things that nobody has named may be in them: most of an image is ground all the same.

    Args:
        sides: Widths and heights (n, 2) of things, from which theirs are drawn; pixels.
        known: Boxes (m, 4).
        size: Height and width of the image.
        count: How many are wanted.
        generator: Of the random numbers.
        tries: How many are drawn for each that is wanted.
    """
    limits = sides.new_tensor([size[1], size[0]])
    drawn = sides[torch.randint(len(sides), (count * tries,), generator=generator)]
    drawn = torch.minimum(drawn, limits)
    place = torch.rand(len(drawn), 2, generator=generator).to(drawn) * (limits - drawn)
    boxes = torch.cat([place, place + drawn], dim=1)
    if len(known):
        boxes = boxes[box_iou(boxes, known.to(boxes)).amax(1) == 0]
    return boxes[:count]
