"""Boxes are drawn where they are, the surest on top, and cut at the photo's border."""

from __future__ import annotations

import numpy as np

from mmclipdis.visualization import class_palette
from mmclipdis.visualization.boxes import draw_boxes, enlarged

COLOURS = class_palette(3)


def test_lines_have_the_colour_of_the_class_and_the_first_is_on_top():
    photo = np.full((200, 300, 3), 77, dtype=np.uint8)
    before = photo.copy()
    boxes = np.array([[50.0, 60, 150, 160], [50, 60, 250, 160], [-40, 100, 20, 500]])
    drawn = draw_boxes(photo, boxes, np.array([2, 0, 1]), ["a", "b", "c"], 3)
    assert np.array_equal(photo, before) and drawn.shape == photo.shape
    assert tuple(drawn[110, 150]) == COLOURS[2]
    assert tuple(drawn[110, 50]) == COLOURS[2], "the surest is drawn last"
    assert tuple(drawn[110, 250]) == COLOURS[0]
    assert tuple(drawn[150, 0]) == tuple(drawn[199, 10]) == COLOURS[1], "cut at the border"
    assert tuple(drawn[110, 100]) == (77, 77, 77), "the photo is seen inside"


def test_words_of_any_script_stand_at_their_box():
    photo = np.zeros((100, 200, 3), dtype=np.uint8)
    box = np.array([[60.0, 40, 180, 90]])
    drawn = draw_boxes(photo, box, np.array([1]), ["\u044f\u0431\u043b\u043e\u043a\u043e 0.5"], 3)
    label = drawn[20:40, 60:120].reshape(-1, 3)
    assert (label == COLOURS[1]).all(1).mean() > 0.3, "above its box"
    for moved, rows, where in (([0, 40, 0, 40], slice(51, 65), "or below"), ([0, 40, 0, -9],
                               slice(0, 14), "or inside, at the top")):  # fmt: skip
        other = draw_boxes(photo, box - [moved], np.array([1]), ["apple"], 3)
        assert (other[rows, 60:90].reshape(-1, 3) == COLOURS[1]).all(1).mean() > 0.3, where
    assert np.array_equal(draw_boxes(photo, np.zeros((0, 4)), np.zeros(0, int), [], 3), photo)


def test_masks_are_painted_in_the_colour_of_their_box():
    photo = np.full((40, 60, 3), 100, dtype=np.uint8)
    masks = np.zeros((1, 40, 60), dtype=bool)
    masks[0, 20:30, 20:30] = True
    box = np.array([[10.0, 15, 50, 38]])
    drawn = draw_boxes(photo, box, np.array([1]), ["a"], 3, masks, 0.25)
    mixed = np.round(75 + 0.25 * np.array(COLOURS[1]))
    assert (drawn[22:28, 22:28] == mixed).all()
    assert (drawn[32, 40] == 100).all()


def test_a_small_photo_is_enlarged_with_all_that_was_found():
    photo = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    masks = photo[None, ..., 0] > 99
    large, boxes, more = enlarged(photo, np.array([[1.0, 2, 3, 4]]), masks, 100)
    assert large.shape == (80, 120, 3) and boxes.tolist() == [[4, 8, 12, 16]]
    assert np.array_equal(large[::4, 3::4], photo) and more is not None
    assert np.array_equal(more[:, 3::4, ::4], masks)
    assert enlarged(photo, boxes, None, 30)[0] is photo
