"""DCLIP's random views: every operation against its Pillow call, the draws against their law."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from mmclipdis.datasets.recognition import transforms as module
from mmclipdis.datasets.recognition.transforms import (
    NAMES,
    OPERATIONS,
    CutoutRandomColor,
    PackMultiLabelInputs,
    RandAugmentUDA,
    random_window,
)

GREY = (128, 128, 128)


def picture(height: int = 60, width: int = 100) -> np.ndarray:
    """Smooth colours with noise, so that no operation leaves it as it is."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    base = np.stack([rows * 3, columns * 2, 200 - rows - columns], -1)
    return np.clip(base + rng.integers(-20, 20, base.shape), 10, 240).astype(np.uint8)


def affine(image: Image.Image, *coefficients: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, fillcolor=GREY)


# What the spec's table says of levels 9 and 3 (a third of the way), with sign 1 and -1.
EXPECTED = {
    ("Invert", 9, 1): ImageOps.invert,
    ("AutoContrast", 3, 1): ImageOps.autocontrast,
    ("Equalize", 3, -1): ImageOps.equalize,
    ("Sharpness", 9, 1): lambda i: ImageEnhance.Sharpness(i).enhance(1.9),
    ("Sharpness", 9, -1): lambda i: ImageEnhance.Sharpness(i).enhance(0.1),
    ("Contrast", 9, 1): lambda i: ImageEnhance.Contrast(i).enhance(1.9),
    ("Contrast", 3, -1): lambda i: ImageEnhance.Contrast(i).enhance(0.7),
    ("Color", 9, -1): lambda i: ImageEnhance.Color(i).enhance(0.1),
    ("Color", 3, 1): lambda i: ImageEnhance.Color(i).enhance(1.3),
    ("Brightness", 9, 1): lambda i: ImageEnhance.Brightness(i).enhance(1.9),
    ("Brightness", 3, -1): lambda i: ImageEnhance.Brightness(i).enhance(0.7),
    ("Posterize", 9, 1): lambda i: ImageOps.posterize(i, 4),
    ("Posterize", 3, -1): lambda i: ImageOps.posterize(i, 7),
    ("Solarize", 9, 1): lambda i: ImageOps.solarize(i, 0),
    ("Solarize", 3, -1): lambda i: ImageOps.solarize(i, 171),  # 170.67: 170 stays
    ("ShearX", 9, 1): lambda i: affine(i, 1, 0.3, 0, 0, 1, 0),
    ("ShearX", 3, -1): lambda i: affine(i, 1, -0.1, 0, 0, 1, 0),
    ("ShearY", 9, -1): lambda i: affine(i, 1, 0, 0, -0.3, 1, 0),
    ("TranslateX", 9, 1): lambda i: affine(i, 1, 0, 150 / 331 * 100, 0, 1, 0),
    ("TranslateX", 3, -1): lambda i: affine(i, 1, 0, -50 / 331 * 100, 0, 1, 0),
    ("TranslateY", 9, 1): lambda i: affine(i, 1, 0, 0, 0, 1, 150 / 331 * 60),
    ("Rotate", 9, 1): lambda i: i.rotate(30, fillcolor=GREY),
    ("Rotate", 3, -1): lambda i: i.rotate(-10, fillcolor=GREY),
}


@pytest.mark.parametrize(("name", "level", "sign"), EXPECTED)
def test_every_operation_is_its_pillow_call(name: str, level: int, sign: int) -> None:
    image = Image.fromarray(picture())
    expected = np.asarray(EXPECTED[name, level, sign](image))
    assert (expected != picture()).any()
    assert (np.asarray(OPERATIONS[name](image, level, sign)) == expected).all()
    assert (np.asarray(image) == picture()).all()  # not in place


def test_all_15_operations_are_tested() -> None:
    assert {name for name, _, _ in EXPECTED} | {"Cutout"} == set(NAMES) and len(NAMES) == 15


def test_level_0_leaves_graded_operations_without_effect() -> None:
    image = Image.fromarray(picture())
    for name in set(NAMES) - {"Invert", "AutoContrast", "Equalize"}:
        assert (np.asarray(OPERATIONS[name](image, 0, 1)) == picture()).all(), name


@pytest.mark.parametrize(("level", "side"), [(9, 20), (3, 7), (1, 2)])
def test_cutout_operation_is_a_grey_square(level: int, side: int) -> None:
    image = Image.fromarray(np.zeros((60, 100, 3), np.uint8))
    sizes = []
    for seed in range(40):
        np.random.seed(seed)
        grey = np.asarray(OPERATIONS["Cutout"](image, level, 1))
        changed = grey.any(-1)
        assert (grey[changed] == 128).all()
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        assert changed.sum() == len(rows) * len(columns) and max(len(rows), len(columns)) <= side
        sizes.append((len(rows), len(columns)))
    assert (side, side) in sizes


def test_images_are_read_as_bgr() -> None:
    """Colour reduced to a tenth leaves red at 0.1 * 255 + 0.9 * 76: its luma is 0.299 * 255."""
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 2] = 255
    image = Image.fromarray(red[..., ::-1])
    expected = np.asarray(OPERATIONS["Color"](image, 9, -1))[0, 0].tolist()
    assert expected == [93, 68, 68]
    augment = RandAugmentUDA(num_ops=1, prob=1.0)
    seen = set()
    for seed in range(400):
        np.random.seed(seed)
        seen.add(tuple(augment.transform(dict(img=red))["img"][0, 0].tolist()))
    assert tuple(expected[::-1]) in seen and tuple(expected) not in seen


class Recorder:
    """Notes the draws in place of an operation."""

    def __init__(self, name: str, calls: list) -> None:
        self.name, self.calls = name, calls

    def __call__(self, image: Image.Image, level: int, sign: int) -> Image.Image:
        self.calls.append((self.name, level, sign))
        return image


def record(monkeypatch, draws: int, **options) -> list[list[tuple[str, int, int]]]:
    calls: list[tuple[str, int, int]] = []
    monkeypatch.setattr(module, "OPERATIONS", {name: Recorder(name, calls) for name in NAMES})
    augment, image, out = RandAugmentUDA(**options), picture(2, 2), []
    np.random.seed(0)
    for _ in range(draws):
        augment.transform(dict(img=image))
        out.append(list(calls))
        calls.clear()
    return out


def near(counts, total: int, probability: float) -> bool:
    """Each count within 4.5 standard deviations of what it should be."""
    deviation = (total * probability * (1 - probability)) ** 0.5
    return all(abs(count - total * probability) < 4.5 * deviation for count in counts)


def test_two_operations_of_15_each_with_probability_a_half(monkeypatch) -> None:
    total = 6000
    applied = record(monkeypatch, total)
    sizes = Counter(len(calls) for calls in applied)
    assert near([sizes[0], sizes[2]], total, 1 / 4) and near([sizes[1]], total, 1 / 2)
    flat = [call for calls in applied for call in calls]
    names, levels, signs = (Counter(column) for column in zip(*flat))
    assert set(names) == set(NAMES) and near(names.values(), len(flat), 1 / 15)
    assert set(levels) == set(range(1, 10)) and near(levels.values(), len(flat), 1 / 9)
    assert set(signs) == {1, -1} and near([signs[1]], len(flat), 1 / 2)
    pairs = [calls for calls in applied if len(calls) == 2]
    # independent of each other, so at times the same
    assert near([sum(a[0] == b[0] for a, b in pairs)], len(pairs), 1 / 15)
    assert near([sum(a[1] == b[1] for a, b in pairs)], len(pairs), 1 / 9)


def test_number_and_probability_are_options(monkeypatch) -> None:
    assert {len(calls) for calls in record(monkeypatch, 20, num_ops=3, prob=1)} == {3}
    assert {len(calls) for calls in record(monkeypatch, 20, prob=0)} == {0}
    for options in (dict(num_ops=-1), dict(prob=1.1)):
        with pytest.raises(ValueError, match="num_ops must be >= 0 and prob in"):
            RandAugmentUDA(**options)


def test_nothing_applied_changes_nothing() -> None:
    assert (RandAugmentUDA(prob=0).transform(dict(img=picture()))["img"] == picture()).all()


@pytest.mark.parametrize("transform", [RandAugmentUDA(prob=1.0), CutoutRandomColor()])
def test_numpys_global_seed_decides(transform) -> None:
    def run(seed: int) -> np.ndarray:
        np.random.seed(seed)
        return np.stack([transform.transform(dict(img=picture()))["img"] for _ in range(8)])

    assert (run(1) == run(1)).all() and (run(1) != run(2)).any()
    assert run(1).dtype == np.uint8 and run(1).shape == (8, 60, 100, 3)


def test_cutout_is_one_rectangle_of_one_colour_anywhere() -> None:
    black = np.zeros((32, 48, 3), np.int16) - 1  # no colour that can be drawn
    areas, colours, tops = [], [], []
    np.random.seed(0)
    for _ in range(3000):
        place = random_window(32, 48, 16, 24)
        image = black.copy()
        image[place] = 0
        changed = image[..., 0] == 0
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        assert changed.sum() == len(rows) * len(columns)
        assert 8 <= len(rows) <= 16 and 12 <= len(columns) <= 24
        areas.append(changed.mean())
        tops.append(rows[0])
    # Half a side less what a uniform centre loses at the borders: 1/2 - 1/16 of each side.
    assert np.mean(areas) == pytest.approx((7 / 16) ** 2, abs=0.004)
    assert set(tops) == set(range(24))
    for _ in range(600):
        image = CutoutRandomColor().transform(dict(img=picture(32, 48)))["img"]
        changed = (image != picture(32, 48)).any(-1)
        colour = np.unique(image[changed], axis=0)
        assert len(colour) == 1
        colours.append(colour[0])
    assert np.mean(colours) == pytest.approx(127.5, abs=8) and np.ptp(colours) > 240
    assert abs(np.corrcoef(np.array(colours).T)[0, 1]) < 0.2  # not one grey


def test_cutout_of_448_is_224() -> None:
    widest = 0
    np.random.seed(0)
    for _ in range(30):
        image = CutoutRandomColor().transform(dict(img=picture(448, 448)))["img"]
        widest = max(widest, *(image != picture(448, 448)).any(-1).sum(0))
    assert widest == 224


def test_cutout_does_not_write_into_the_loaded_image() -> None:
    image = picture()
    CutoutRandomColor().transform(dict(img=image))
    assert (image == picture()).all()


def test_what_cannot_be_augmented_is_refused() -> None:
    for transform in (CutoutRandomColor(), RandAugmentUDA()):
        with pytest.raises(ValueError, match=r"must be uint8 \(H, W, 3\), got float32 \(4, 4, 3\)"):
            transform.transform(dict(img=np.zeros((4, 4, 3), np.float32)))
        with pytest.raises(ValueError, match=r"got uint8 \(4, 4\)"):
            transform.transform(dict(img=np.zeros((4, 4), np.uint8)))
    with pytest.raises(ValueError, match=r"ratio must be in \(0, 1\], got 0"):
        CutoutRandomColor(0)


def test_packing() -> None:
    results = dict(img=picture(), gt_score=np.array([1, 0, -1], np.int8), img_path="a.jpg")
    results.update(ori_shape=(6, 10), img_shape=(60, 100), sample_idx=3, scale_factor=(10, 10))
    item = PackMultiLabelInputs().transform(results)
    assert item["inputs"].shape == (3, 60, 100) and item["inputs"].dtype == torch.uint8
    assert (item["inputs"][0].numpy() == picture()[..., 0]).all()
    sample = item["data_samples"]
    assert sample.gt_score.dtype == torch.float32 and sample.gt_score.tolist() == [1, 0, -1]
    assert sample.metainfo == dict(
        img_path="a.jpg", ori_shape=(6, 10), img_shape=(60, 100), sample_idx=3
    )
    assert "gt_score" not in PackMultiLabelInputs().transform(dict(img=picture()))["data_samples"]
