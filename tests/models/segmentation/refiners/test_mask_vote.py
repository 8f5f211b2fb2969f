"""The vote in a mask: golden labels, ties, and a naive count."""

from __future__ import annotations

from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmclipdis.models.segmentation import MaskVote


def vote(labels: list[list[int]], masks: list[list[int]]) -> list[list[int]]:
    return MaskVote().refine(torch.tensor(labels), torch.tensor(masks)).tolist()


def test_golden_labels() -> None:
    labels = [[1, 1, 2, 0], [2, 2, 2, 0], [3, 3, 0, 0]]
    masks = [[1, 1, 1, 0], [1, 1, 0, 0], [2, 2, 3, 3]]
    assert vote(labels, masks) == [[2, 2, 2, 0], [2, 2, 2, 0], [3, 3, 0, 0]]


def test_the_smallest_of_equally_frequent_labels_wins() -> None:
    assert vote([[5, 2, 5, 2, 9, 7]], [[1, 1, 1, 1, 1, 0]]) == [[2, 2, 2, 2, 2, 7]]


def test_one_mask_changes_nothing() -> None:
    """The smallest number stands for no mask, whatever it is."""
    labels = [[3, 1, 1], [255, 0, 1]]
    for number in (0, 4, 10000):
        assert vote(labels, [[number] * 3] * 2) == labels


def naive(labels: Tensor, masks: Tensor) -> Tensor:
    found = labels.clone()
    for number in sorted(set(masks.flatten().tolist()))[1:]:
        inside = masks == number
        counts = Counter(labels[inside].tolist())
        found[inside] = min(counts, key=lambda label: (-counts[label], label))
    return found


@given(seed=st.integers(0, 1000), classes=st.integers(1, 5), masks=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_equals_a_count_mask_by_mask(seed: int, classes: int, masks: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    names = torch.tensor([0, 7, 255, 3, 12])[:classes]
    labels = names[torch.randint(0, classes, (7, 8), generator=generator)]
    numbers = torch.tensor([10000, 4, 0, 9, 2, 300])[:masks]
    regions = numbers[torch.randint(0, masks, (7, 8), generator=generator)]
    assert torch.equal(MaskVote().refine(labels, regions), naive(labels, regions))
