"""Grids, boxes and crops; golden values of fact spec G9 and G10, and a naive reference."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from mmcv.transforms.utils import cache_random_params
from PIL import Image

from mmclipdis.datasets.distillation.grid_crops import GridCrops, enlarged, grid_cells, grid_shapes
from tests.datasets.distillation.files import photo


def crops_of(image: Image.Image, shape: tuple[int, int] | None = None, **options):
    transform = GridCrops(**options)
    if shape is not None:
        transform.shapes = [shape]
    return transform.transform({"pil": image})


def in_order(results):
    """Row by row, as the cells were before they were shuffled."""
    order = np.lexsort((results["boxes"][:, 0], results["boxes"][:, 1]))
    return results["boxes"][order], results["crops"][order]


def test_g9_the_24_grids():
    shapes = grid_shapes()
    columns = {m: {n for rows, n in shapes if rows == m} for m in range(1, 7)}
    assert columns == {
        1: {1, 2},
        2: {1, 2, 3, 4},
        3: {2, 3, 4, 5, 6},
        4: {2, 3, 4, 5, 6},
        5: {3, 4, 5, 6},
        6: {3, 4, 5, 6},
    }
    cells = [m * n for m, n in shapes]
    assert len(shapes) == 24
    assert sum(cells) == 361 and sum(cells) / 24 == pytest.approx(15.0417, abs=5e-5)
    assert np.mean(np.minimum(cells, 20)) == 13.0
    too_many = [shape for shape in shapes if shape[0] * shape[1] > 20]
    assert too_many == [(4, 6), (5, 5), (5, 6), (6, 4), (6, 5), (6, 6)]


@pytest.mark.parametrize("shape", grid_shapes())
def test_g9_cells_tile_the_unit_square_exactly(shape):
    rows, cols = shape
    cells = grid_cells(rows, cols).reshape(rows, cols, 4)
    assert np.all(cells[:, 0, 0] == 0) and np.all(cells[0, :, 1] == 0)
    assert np.all(cells[:, -1, 2] == 1) and np.all(cells[-1, :, 3] == 1)
    assert np.array_equal(cells[:, 1:, 0], cells[:, :-1, 2])
    assert np.array_equal(cells[1:, :, 1], cells[:-1, :, 3])
    assert np.all(cells[..., 2] > cells[..., 0]) and np.all(cells[..., 3] > cells[..., 1])
    np.testing.assert_allclose(
        cells[..., 2:] - cells[..., :2], [[[1 / cols, 1 / rows]] * cols] * rows
    )


def test_g10_first_cell_of_two_rows_and_three_columns():
    image = photo(640, 480)
    results = crops_of(image, (2, 3))
    boxes, crops = in_order(results)
    np.testing.assert_allclose(boxes[0], [0, 0, 0.33333, 0.375], atol=5e-6)
    assert boxes.dtype == np.float32 and boxes.shape == (6, 4)
    assert boxes[:, 3].max() == 0.75 and boxes[:, 2].max() == 1
    assert crops.shape == (6, 3, 224, 224) and crops.dtype == np.uint8
    pixels = image.crop((0, 0, 213, 240)).resize((199, 224), Image.Resampling.BICUBIC)
    expected = np.zeros((224, 224, 3), np.uint8)
    expected[:, 12:211] = np.asarray(pixels)
    assert np.array_equal(crops[0], expected.transpose(2, 0, 1))
    assert results["grid"] == (2, 3)


def naive(image: Image.Image, rows: int, cols: int, size: int):
    """Boxes and crops with loops and Pillow alone."""
    width, height = image.size
    boxes, crops = [], []
    for i in range(rows):
        for j in range(cols):
            x0, y0 = j * width / cols, i * height / rows
            x1, y1 = (j + 1) * width / cols, (i + 1) * height / rows
            boxes.append([value / max(width, height) for value in (x0, y0, x1, y1)])
            crop = image.crop((round(x0), round(y0), round(x1), round(y1)))
            scale = size / max(crop.size)
            crop = crop.resize([round(side * scale) for side in crop.size], Image.BICUBIC)
            square = Image.new("RGB", (size, size))
            square.paste(crop, ((size - crop.width) // 2, (size - crop.height) // 2))
            crops.append(np.asarray(square).transpose(2, 0, 1))
    return np.array(boxes), np.stack(crops)


@pytest.mark.parametrize("size", [(97, 61), (61, 97), (15, 13), (50, 50)])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 3), (4, 5), (3, 6)])
def test_boxes_and_crops_equal_a_naive_reference(size, shape):
    image = photo(*size)
    boxes, crops = in_order(crops_of(image, shape, crop_size=24))
    expected_boxes, expected_crops = naive(image, *shape, 24)
    np.testing.assert_allclose(boxes, expected_boxes, atol=1e-7)
    assert np.array_equal(crops, expected_crops)


def test_halves_round_to_even_pixels_and_cells_share_no_column():
    # 15 / 2 = 7.5 -> 8 columns and 7; 10 / 4 = 2.5 -> edges 0 2 5 8 10
    image = Image.fromarray(np.arange(15, dtype=np.uint8)[None, :, None].repeat(15, 0).repeat(3, 2))
    _, crops = in_order(crops_of(image, (1, 2), crop_size=15))
    # 8 and 7 columns of 15 rows, unscaled, 3 and 4 columns of padding on the left
    assert crops[0, 0, 0].tolist() == [0] * 3 + list(range(8)) + [0] * 4
    assert crops[1, 0, 0].tolist() == [0] * 4 + list(range(8, 15)) + [0] * 4
    small = Image.fromarray(np.arange(10, dtype=np.uint8)[None, :, None].repeat(10, 0).repeat(3, 2))
    _, crops = in_order(crops_of(small, (1, 4), crop_size=10))
    found = [sorted(set(crop[0, 0].tolist()) - {0}) for crop in crops]
    assert found == [[1], [2, 3, 4], [5, 6, 7], [8, 9]]


@pytest.mark.parametrize("size", [(10, 10), (10, 900), (6, 7)])
def test_tiny_and_thin_images_have_no_empty_crop(size):
    image = Image.new("RGB", size, (255, 255, 255))
    for shape in grid_shapes():
        results = crops_of(image, shape, crop_size=16)
        assert np.all(results["crops"].max(axis=(1, 2, 3)) == 255)


def test_an_image_smaller_than_the_grid_is_refused():
    with pytest.raises(ValueError, match="5x40 pixels, too few for 6 cells a side; raise min_side"):
        crops_of(photo(5, 40))


def test_crop_scale_enlarges_around_the_centre_and_clamps():
    image = photo(120, 60)
    box = np.array([40.0, 20.0, 80.0, 40.0])
    assert enlarged(box, 1.5, 120, 60) == (30, 15, 90, 45)
    assert enlarged(np.array([0.0, 0.0, 40.0, 20.0]), 1.5, 120, 60) == (0, 0, 50, 25)
    assert enlarged(np.array([80.0, 40.0, 120.0, 60.0]), 1.5, 120, 60) == (70, 35, 120, 60)
    boxes, crops = in_order(crops_of(image, (3, 3), crop_size=30, crop_scale=1.5))
    plain_boxes, _ = in_order(crops_of(image, (3, 3), crop_size=30))
    assert np.array_equal(boxes, plain_boxes)
    middle = image.crop((30, 15, 90, 45)).resize((30, 15), Image.Resampling.BICUBIC)
    assert np.array_equal(crops[4, :, 7:22], np.asarray(middle).transpose(2, 0, 1))


def test_all_cells_of_a_small_grid_are_kept_and_20_of_a_large_one():
    np.random.seed(0)
    image = photo(60, 60)
    boxes, _ = in_order(crops_of(image, (4, 5), crop_size=8))
    np.testing.assert_allclose(boxes, grid_cells(4, 5), atol=1e-7)
    cells = {tuple(cell) for cell in grid_cells(6, 6).astype(np.float32)}
    seen = Counter()
    for _ in range(200):
        kept = [tuple(box) for box in crops_of(image, (6, 6), crop_size=8)["boxes"]]
        assert len(set(kept)) == len(kept) == 20 and set(kept) <= cells
        seen.update(kept)
    # 200 * 20/36 = 111 +- 7 each
    assert set(seen) == cells and min(seen.values()) > 76 and max(seen.values()) < 146


def test_order_is_shuffled_and_crops_follow_their_boxes():
    np.random.seed(0)
    grey = np.repeat(np.arange(4) * 60 + 30, 15).astype(np.uint8)
    image = Image.fromarray(grey[None, :, None].repeat(60, 0).repeat(3, 2))
    orders = set()
    for _ in range(30):
        results = crops_of(image, (2, 4), crop_size=30)
        columns = np.rint(results["boxes"][:, 0] * 4).astype(int)
        assert np.array_equal(results["crops"][:, 0, 15, 15], columns * 60 + 30)
        orders.add(tuple(results["boxes"].ravel()))
    assert len(orders) == 30


def test_grids_are_drawn_uniformly():
    np.random.seed(0)
    transform = GridCrops()
    seen = Counter(transform._draw()[0] for _ in range(4800))
    assert set(seen) == set(grid_shapes())
    chi_square = sum((count - 200) ** 2 / 200 for count in seen.values())
    assert chi_square < 49.7  # 99.9 % quantile of 23 degrees of freedom


def test_numpys_seed_decides_everything():
    image = photo(80, 60)
    runs = []
    for seed in (3, 3, 4):
        np.random.seed(seed)
        runs.append(crops_of(image, crop_size=8))
    first, again, other = runs
    assert all(np.array_equal(first[key], again[key]) for key in ("boxes", "crops", "grid"))
    assert not np.array_equal(first["boxes"], other["boxes"])


def test_mmcvs_cached_randomness_repeats_a_draw():
    transform = GridCrops(crop_size=8)
    with cache_random_params(transform):
        first = transform.transform({"pil": photo(80, 60)})
        second = transform.transform({"pil": photo(60, 80)})
    assert first["grid"] == second["grid"]


@pytest.mark.parametrize(
    "options", [dict(crop_size=0), dict(max_split=0), dict(max_boxes=0), dict(crop_scale=0.9)]
)
def test_arguments_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="must be at least 1"):
        GridCrops(**options)
