"""Scenes: deterministic, varied, and labelled as drawn."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mmclipdis.shapes.captions import full_caption, names_in, partial_caption
from mmclipdis.shapes.grounds import paint_ground
from mmclipdis.shapes.objects import PAINTERS
from mmclipdis.shapes.scene import KINDS, MIN_PIXELS, draw_scene, random_size
from mmclipdis.shapes.world import BASE, CLASSES, GROUPS, NOVEL, PALETTE, STUFF, THINGS


def _scenes(count: int, kind: str = "scene"):
    for index in range(count):
        rng = np.random.default_rng([5, index])
        yield draw_scene(rng, random_size(rng), kind)


def test_groups_partition_the_classes_in_two_ways() -> None:
    assert sorted(BASE + NOVEL) == sorted(CLASSES) == sorted(THINGS + STUFF)
    assert len(set(CLASSES)) == len(CLASSES) == len(PALETTE) == len(set(PALETTE))
    assert len(THINGS) == 12 and len(STUFF) == 6
    for part in ("base", "novel"):
        assert set(GROUPS[part]) & set(THINGS) and set(GROUPS[part]) & set(STUFF)


def test_colours_of_the_label_maps_differ_from_each_other_and_from_paper() -> None:
    colours = np.float32([*PALETTE, (255, 255, 255)])[None] / 255
    lab = cv2.cvtColor(colours, cv2.COLOR_RGB2LAB)[0]
    distances = np.linalg.norm(lab[:, None] - lab, axis=-1)
    assert distances[np.triu_indices(len(lab), 1)].min() > 25  # about ten times the noticeable


def test_same_generator_state_draws_the_same_bytes() -> None:
    for first, second in zip(_scenes(6), _scenes(6), strict=True):
        assert first.image.tobytes() == second.image.tobytes()
        assert first.labels.tobytes() == second.labels.tobytes()
        assert first.objects == second.objects


def test_labels_agree_with_instances_and_objects() -> None:
    for scene in _scenes(20):
        assert scene.image.shape == (*scene.labels.shape, 3)
        assert scene.instances.max() == len(scene.objects)
        for number, index in enumerate(scene.objects, start=1):
            visible = scene.instances == number
            assert visible.sum() >= MIN_PIXELS
            assert (scene.labels[visible] == index).all()
        assert (scene.labels[scene.instances == 0] >= len(THINGS)).all()


def test_scenes_vary_in_shape_count_scale_and_grounds() -> None:
    scenes = list(_scenes(80))
    sizes = {scene.labels.shape for scene in scenes}
    assert any(h != w for h, w in sizes) and len(sizes) > 40
    assert {len(scene.objects) for scene in scenes} == {1, 2, 3, 4, 5}
    assert {len(scene.grounds) for scene in scenes} == {1, 2}
    assert {name for scene in scenes for name in scene.things} == set(THINGS)
    areas = [np.bincount(s.instances.ravel())[1:].max() / s.labels.size for s in scenes]
    assert min(areas) < 0.03 and max(areas) > 0.25


@pytest.mark.parametrize(
    ("kind", "counts"), [("single", {1}), ("closeup", {1, 2}), ("ground", {0})]
)
def test_each_kind_holds_its_number_of_objects(kind: str, counts: set[int]) -> None:
    assert {len(scene.objects) for scene in _scenes(30, kind)} == counts


def test_captions_name_exactly_what_is_visible() -> None:
    for index, scene in enumerate(_scenes(40)):
        rng = np.random.default_rng(index)
        counts = np.bincount(scene.labels.ravel(), minlength=len(CLASSES))
        visible = {CLASSES[i] for i in range(len(CLASSES)) if counts[i] >= 15}
        caption = full_caption(rng, scene.things, scene.grounds)
        assert set(names_in(caption)) == visible
        assert set(names_in(partial_caption(rng, scene.things))) < visible


def test_names_are_found_as_whole_words_only() -> None:
    assert names_in("A Fish on a fishbowl, with pineapple.") == ("fish",)
    assert names_in("an orange and a plum") == ("plum", "orange")


@pytest.mark.parametrize("name", THINGS)
def test_silhouettes_stay_inside_their_frame(name: str) -> None:
    v, u = np.mgrid[-1.2:1.2:97j, -1.2:1.2:97j].astype(np.float32)
    mask, rgb = PAINTERS[name](u, v, np.random.default_rng(0))
    assert rgb.shape == (97, 97, 3)
    assert 0.12 < mask[(abs(u) <= 1) & (abs(v) <= 1)].mean() < 0.85
    assert not mask[(abs(u) > 1.05) | (abs(v) > 1.05)].any()


@pytest.mark.parametrize("name", STUFF)
def test_grounds_fill_the_canvas_with_texture(name: str) -> None:
    ground = paint_ground(name, 70, 40, np.random.default_rng(0))
    assert ground.shape == (70, 40, 3) and ground.std(axis=(0, 1)).max() > 2
    assert ground.min() >= 0 and ground.max() <= 255


def test_bad_requests_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="unknown kind of scene 'crowd'.*" + KINDS[0]):
        draw_scene(rng, (64, 64), "crowd")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 12 pixels, got 8 x 64"):
        draw_scene(rng, (8, 64))
