"""Masks made of colours alone follow what is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from mmclipdis.models import MeanShiftMasks
from mmclipdis.shapes.scene import draw_scene


def test_flat_parts_are_masks_the_largest_first() -> None:
    photo = np.full((40, 60, 3), (200, 30, 30), np.uint8)
    photo[5:20, 5:25] = (20, 160, 40)  # two of one colour that do not touch
    photo[25:35, 40:50] = (20, 160, 40)
    photo[30:32, 5:8] = (240, 240, 20)  # too small
    found = MeanShiftMasks(spatial=2, colour=10, least=0.01)(photo)
    expected = np.ones((40, 60), int)
    expected[5:20, 5:25], expected[25:35, 40:50], expected[30:32, 5:8] = 2, 3, 0
    assert np.array_equal(found, expected)


def test_masks_of_shape_scenes_are_of_one_class_and_cover_most() -> None:
    """And are the same each time."""
    pure, covered, made = [], [], []
    for seed in range(6):
        scene = draw_scene(np.random.default_rng(seed), (96, 112))
        masks = MeanShiftMasks()(scene.image)
        assert np.array_equal(masks, MeanShiftMasks()(scene.image))
        inside = [scene.labels[masks == number] for number in range(1, masks.max() + 1)]
        pure.append(sum(np.bincount(labels).max() for labels in inside) / (masks > 0).sum())
        covered.append((masks > 0).mean())
        made.append(len(inside))
    assert np.mean(pure) > 0.98
    assert np.mean(covered) > 0.85
    assert 3 <= min(made) <= max(made) <= 40


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (2, 3), (50, 1)])
def test_thin_photos(size: tuple[int, int]) -> None:
    found = MeanShiftMasks()(np.full((*size, 3), 7, np.uint8))
    assert found.tolist() == np.ones(size, int).tolist()


@pytest.mark.parametrize(
    ("name", "value"), [("spatial", 0), ("colour", "x"), ("join", True), ("least", 1)]
)
def test_settings(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"MeanShiftMasks.{name} .* got {value!r}"):
        MeanShiftMasks(**{name: value})  # type: ignore[arg-type]
