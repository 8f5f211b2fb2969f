"""Attention and cosine maps are those of the naive N x N matrices, at the right patch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from mmclipdis.clip.towers.affinity import Guide
from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.towers.readout import READOUTS, Readout
from mmclipdis.visualization.feature_figure import _draw_map, draw_feature_maps
from mmclipdis.visualization.feature_maps import (
    FeatureMap,
    anchor_patch,
    attention_rows,
    check_layers,
    clip_maps,
    cosine_map,
    spread_layers,
    vfm_maps,
)
from tests.clip.readouts import fitted
from tests.tiny import tiny_arch, tiny_eva_arch

GRID = (3, 5)
PATCHES = [(2, 1), (0, 4)]


def openai_tower() -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    tower = build_image_tower(tiny_arch()).eval()
    return tower, torch.randn(1, 3, 16 * GRID[0], 16 * GRID[1])


def eva_tower() -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    tower = build_image_tower(tiny_eva_arch()).eval()
    return tower, torch.randn(1, 3, 4 * GRID[0], 4 * GRID[1])


def openai_weights(tower: Any, image: Tensor) -> list[Tensor]:
    """Attention (L, L) of every block, mean over heads, as torch's own attention returns it."""
    found, x = [], tower.embed(image)
    for block in tower.blocks:
        y = block.ln_1(x)
        found.append(block.attn(y, y, y, need_weights=True)[1][0])
        x = block(x)
    return found


def eva_weights(tower: Any, image: Tensor) -> list[Tensor]:
    """The same of timm's blocks: what their dropout of the attention sees."""
    found: list[Tensor] = []
    x, rope = tower.embed(image), tower.rope(image)
    for block in tower.blocks:
        block.attn.fused_attn = False
        hook = block.attn.attn_drop.register_forward_hook(
            lambda module, args, output: found.append(output[0].mean(dim=0))
        )
        x = block(x, rope=rope)
        hook.remove()
        block.attn.fused_attn = True
    return found


def naive_self_weights(tower: Any, block: Any, x: Tensor, letters: str, scale: float) -> Tensor:
    """Mean over heads of ``softmax(s mean(z z^T))`` for the projections z named by ``letters``."""
    weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
    width, head = x.shape[-1], x.shape[-1] // tower.heads
    projected = block.ln_1(x)[0] @ weight.T + bias
    total = torch.zeros(len(projected), len(projected))
    for h in range(tower.heads):
        logits = torch.zeros_like(total)
        for letter in letters:
            start = "qkv".index(letter) * width + h * head
            z = projected[:, start : start + head]
            logits += z @ z.T * scale / len(letters)
        total += logits.softmax(dim=-1) / tower.heads
    return total


def of_group(maps: list[FeatureMap], group: str, anchor: int | None) -> dict[str, np.ndarray]:
    return {m.title: m.values for m in maps if m.group == group and m.anchor == anchor}


@pytest.mark.parametrize(
    ("make", "weights"), [(openai_tower, openai_weights), (eva_tower, eva_weights)]
)
def test_attention_maps_are_rows_of_the_librarys_own_weights(make: Any, weights: Any) -> None:
    tower, image = make()
    with torch.no_grad():
        expected = weights(tower, image)
    maps = clip_maps(tower, image, PATCHES, layers=range(3), groups=("attention", "cls"))
    assert {m.group for m in maps} == {"attention", "cls"}
    for layer, matrix in enumerate(expected):
        rows = {None: 0, 0: 1 + 2 * GRID[1] + 1, 1: 1 + 0 * GRID[1] + 4}
        for anchor, row in rows.items():
            group = "cls" if anchor is None else "attention"
            values = of_group(maps, group, anchor)[f"block {layer}"]
            naive = matrix[row, 1:].view(GRID).numpy()
            np.testing.assert_allclose(values, naive, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("readout", "groups", "scaled"),
    [("qq", ["q"], True), ("declip", ["q", "k"], True), ("all", ["qkv"], True),
     (Readout(("qq", "kk"), scale="none"), ["q", "k"], False)],
)  # fmt: skip
def test_the_last_block_attends_as_its_readout(
    readout: Any, groups: list[str], scaled: bool
) -> None:
    tower, _ = openai_tower()
    readout = READOUTS[readout] if isinstance(readout, str) else readout
    block, x = tower.blocks[-1], torch.randn(1, 16, tower.width)
    scale = 16**-0.5 if scaled else 1.0
    with torch.no_grad():
        rows = attention_rows(block, x, [0, 7], readout)[0]
        naive = sum(naive_self_weights(tower, block, x, g, scale) for g in groups) / len(groups)
    torch.testing.assert_close(rows, naive[[0, 7]], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(rows.sum(dim=-1), torch.ones(2))


def test_only_the_last_block_and_not_cls_are_read_otherwise() -> None:
    tower, image = openai_tower()
    plain = clip_maps(tower, image, PATCHES, [0, 2], READOUTS["vanilla"])
    declip = clip_maps(tower, image, PATCHES, [0, 2], READOUTS["declip"])
    differ = {
        (a.group, a.title)
        for a, b in zip(plain, declip, strict=True)
        if not np.allclose(a.values, b.values)
    }
    assert differ == {("attention", "block 2"), ("features", "dense map")}


@pytest.mark.parametrize("size", [(90, 200), (48, 80), (317, 211)])
@pytest.mark.parametrize("patch", [(0, 0), (2, 1), (1, 4), (2, 4)])
def test_a_token_that_attends_to_itself_lies_at_the_anchor(
    size: tuple[int, int], patch: tuple[int, int]
) -> None:
    """From a pixel of a photo of any size, over the patch, to the token and back to the map."""
    tower, image = openai_tower()
    x = int((patch[1] + 0.5) * size[1] / GRID[1])
    y = int((patch[0] + 0.5) * size[0] / GRID[0])
    assert anchor_patch((x, y), size, GRID) == patch
    (found,) = clip_maps(tower, image, [patch], [-1], READOUTS["maskclip"], ("attention",))
    expected = np.zeros(GRID)
    expected[patch] = 1
    np.testing.assert_array_equal(found.values, expected)


@pytest.mark.parametrize("name", ["resclip", "gem", "proxyclip", "scclip"])
def test_what_is_no_attention_of_the_last_block_is_not_drawn(name: str) -> None:
    tower, image = openai_tower()
    readout = fitted(name)
    with pytest.raises(ValueError, match="are not drawn; leave the group 'attention' out"):
        clip_maps(tower, image, PATCHES, [-1], readout)
    maps = clip_maps(tower, image, PATCHES, [0, -1], readout, ("cls", "blocks"))
    plain = clip_maps(tower, image, PATCHES, [0, -1], groups=("cls", "blocks"))
    for found, expected in zip(maps, plain, strict=True):
        assert (found.group, found.title) == (expected.group, expected.title)
        np.testing.assert_array_equal(found.values, expected.values)


def test_neighbours_and_factors_enter_the_attention_of_the_last_block() -> None:
    tower, image = openai_tower()

    def drawn(readout: Any) -> np.ndarray:
        return clip_maps(tower, image, PATCHES[:1], [-1], readout, ("attention",))[0].values

    (row, column), block, x = PATCHES[0], tower.blocks[-1], tower.embed(image)
    with torch.no_grad():
        for before in tower.blocks[:-1]:
            x = before(x)
        keys = (block.ln_1(x) @ block.attn.in_proj_weight.T + block.attn.in_proj_bias).chunk(3, 2)[
            1
        ]
        k = keys[0].unflatten(1, (tower.heads, -1)).transpose(0, 1)
        own = k[:, 1 + row * GRID[1] + column]
        logits = torch.einsum("hd,hnd->hn", own, k) / 4
        for place in range(GRID[0] * GRID[1]):
            y, x_ = divmod(place, GRID[1])
            logits[:, 1 + place] += np.exp(-((y - row) ** 2 + (x_ - column) ** 2) / 50)
        naive = logits.softmax(dim=-1).mean(dim=0)[1:].unflatten(0, GRID)
    np.testing.assert_allclose(drawn(READOUTS["naclip"]), naive.numpy(), rtol=1e-4, atol=1e-6)
    weighed = drawn(Readout({"kk": 3, "qq": 1}))  # type: ignore[arg-type]
    expected = 0.75 * drawn(READOUTS["kk"]) + 0.25 * drawn(READOUTS["qq"])
    np.testing.assert_allclose(weighed, expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"neighbours needs grid=\(h, w\)"):
        attention_rows(tower.blocks[-1], torch.randn(1, 16, tower.width), [0], READOUTS["naclip"])


def test_the_anchor_lies_on_the_finer_grid_of_an_affinity() -> None:
    tower, image = openai_tower()
    grid = (2 * GRID[0], 3 * GRID[1])
    guide = Guide(torch.randn(1, 4, *grid))
    maps = clip_maps(tower, image, PATCHES, [-1], READOUTS["proxyclip"], ("features",), guide)
    dense = [found for found in maps if found.title == "dense map"]
    for (row, column), found in zip(PATCHES, dense, strict=True):
        assert found.values.shape == grid
        assert found.values[2 * row + 1, 3 * column + 1] == pytest.approx(1)


def test_cosine_maps_are_rows_of_the_naive_similarity() -> None:
    tower, image = openai_tower()
    with torch.no_grad():
        dense = tower.forward_dense(
            image, READOUTS["declip"], intermediates=[0, 2], context=("q", "k", "v")
        )
    expected = {
        "block 0": dense.intermediates[0], "block 2": dense.intermediates[1],
        "dense map": dense.map, **dense.context,
    }  # fmt: skip
    maps = clip_maps(tower, image, PATCHES, [0, -1], READOUTS["declip"], ("blocks", "features"))
    assert [m.title for m in maps if m.anchor == 0] == ["block 0", "block 2", "q", "k", "v",
                                                        "dense map"]  # fmt: skip
    for found in maps:
        row, column = PATCHES[found.anchor or 0]
        features = expected[found.title]
        naive = torch.cosine_similarity(features, features[:, :, row, None, column, None], dim=1)
        np.testing.assert_allclose(found.values, naive[0].numpy(), rtol=1e-4, atol=1e-5)
        assert found.values[row, column] == pytest.approx(1)


def test_a_vision_model_has_the_cosines_of_its_map() -> None:
    features = torch.randn(1, 6, *GRID)
    maps = vfm_maps(torch.nn.Identity(), features, PATCHES)
    assert [(m.group, m.title, m.anchor) for m in maps] == [
        ("features", "dense map", 0), ("features", "dense map", 1),
    ]  # fmt: skip
    np.testing.assert_array_equal(maps[1].values, cosine_map(features, PATCHES[1]))


@pytest.mark.parametrize(
    ("anchor", "size", "grid", "patch"),
    [
        ((0, 0), (100, 200), (5, 10), (0, 0)),
        ((199, 99), (100, 200), (5, 10), (4, 9)),
        ((20, 19), (100, 200), (5, 10), (0, 1)),
        ((639, 0), (427, 640), (19, 28), (0, 27)),
    ],
)
def test_golden_anchor_patches(anchor: Any, size: Any, grid: Any, patch: Any) -> None:
    assert anchor_patch(anchor, size, grid) == patch


@pytest.mark.parametrize("anchor", [(200, 0), (0, 100), (-1, 5)])
def test_an_anchor_outside_is_refused(anchor: tuple[int, int]) -> None:
    message = f"anchor {anchor[0]},{anchor[1]} is outside the picture of 200 x 100 px"
    with pytest.raises(ValueError, match=message):
        anchor_patch(anchor, (100, 200), (5, 10))


def test_layers_count_from_either_end() -> None:
    assert check_layers([0, -1, 11, 3], 12) == [0, 11, 3]
    assert (spread_layers(12), spread_layers(4), spread_layers(3)) == (
        [2, 5, 8, 11], [0, 1, 2, 3], [0, 1, 2],
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"layers \[12, -13\] do not exist: .* 0 to 11"):
        check_layers([12, 0, -13], 12)


def test_unknown_groups_are_refused() -> None:
    tower, image = openai_tower()
    with pytest.raises(ValueError, match=r"unknown maps \['keys'\]; known: attention, cls"):
        clip_maps(tower, image, PATCHES, [0], groups=("keys",))


def test_maps_are_laid_over_the_whole_photo() -> None:
    photo = np.zeros((60, 100, 3), np.uint8)
    panel = Figure().add_subplot()
    values = np.arange(15, dtype=np.float32).reshape(GRID)
    _draw_map(panel, photo, values, "features", smooth=False)
    below, above = panel.images
    assert below.get_array().shape == (60, 100)
    assert tuple(above.get_extent()) == (-0.5, 99.5, 59.5, -0.5)
    np.testing.assert_array_equal(above.get_array(), values)


def test_the_picture_shows_the_hot_patch_in_its_place(tmp_path: Any) -> None:
    """One panel beside the photo: its brightest point is where the patch is."""
    photo = np.zeros((60, 100, 3), np.uint8)
    hot = np.zeros((6, 10), np.float32)
    hot[4, 7] = 1
    path = draw_feature_maps(
        photo, [], {"model": [FeatureMap("cls", "block 0", hot)]}, tmp_path / "a" / "maps.png"
    )
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    middle = picture.shape[1] // 2
    panel = picture[:, middle:]
    rows, columns = np.nonzero((panel.max(axis=2) - panel.min(axis=2)) > 50)
    dark_rows, dark_columns = np.nonzero(panel.sum(axis=2) < 100)
    top, left = dark_rows.min(), dark_columns.min()
    height, width = dark_rows.max() - top, dark_columns.max() - left
    assert (rows.mean() - top) / height == pytest.approx(4.5 / 6, abs=0.05)
    assert (columns.mean() - left) / width == pytest.approx(7.5 / 10, abs=0.05)


def test_nothing_to_draw_and_odd_endings_are_refused(tmp_path: Any) -> None:
    photo = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="no maps to draw"):
        draw_feature_maps(photo, [(0, 0)], {"model": []}, tmp_path / "maps.png")
    maps = [FeatureMap("features", "q", np.ones((2, 2), np.float32), 0)]
    with pytest.raises(ValueError, match="end it with one of .*png"):
        draw_feature_maps(photo, [(0, 0)], {"model": maps}, tmp_path / "maps.doc")
