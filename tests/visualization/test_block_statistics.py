"""Statistics of CLIP's blocks against loops over tokens and the library's own blocks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.towers.image_tower import ImageTower
from mmclipdis.visualization.block_figure import draw_block_statistics
from mmclipdis.visualization.block_statistics import PARTS, BlockStatistics, image_statistics
from tests.tiny import tiny_arch, tiny_eva_arch

ARCHS = {"open_clip": tiny_arch(), "EVA": tiny_eva_arch()}


@pytest.fixture(params=list(ARCHS))
def tower(request: pytest.FixtureRequest) -> ImageTower:
    torch.manual_seed(0)
    return build_image_tower(ARCHS[request.param]).double().eval()


def naive(tokens: Tensor) -> dict[str, Any]:
    """Of the tokens of an image ``(N, D)``, a token and a channel at a time."""
    rows = tokens.tolist()
    lengths = [math.sqrt(sum(x * x for x in row)) for row in rows]
    entropies = []
    for row, length in zip(rows, lengths, strict=True):
        shares = [x * x / length**2 for x in row]
        entropies.append(-sum(p * math.log(p) for p in shares if p) / math.log(len(row)))
    return {
        "norm": sum(lengths) / len(rows),
        "entropy": sum(entropies) / len(rows),
        "maximum": max(abs(x) for row in rows for x in row),
        "channel_mean": [sum(column) / len(rows) for column in zip(*rows, strict=True)],
    }


def naive_parts(tower: ImageTower, image: Tensor) -> list[dict[str, Tensor]]:
    """Parts of each block, the attention as what the library's block adds without its FFN."""
    x, rope, found = tower.embed(image[None]), tower.rope(image[None]), []
    for block in tower.blocks:
        options = {} if rope is None else {"rope": rope}
        if rope is None:
            y = block.ln_1(x)
            attention = block.attn(y, y, y, need_weights=True)[0]
            ffn = block.mlp(block.ln_2(x + attention))
        else:
            attention = block.attn(block.norm1(x), **options)
            ffn = block.mlp(block.norm2(x + attention))
        output = block(x, **options)
        parts = dict(residual=x, attention=attention, ffn=ffn, output=output)
        found.append({name: part[0, 1:] for name, part in parts.items()})
        x = output
    return found


@torch.no_grad()
def test_every_number_is_that_of_a_loop_over_images_tokens_and_channels(tower: ImageTower) -> None:
    images = torch.randn(3, 3, *tower.image_size, dtype=torch.float64)
    statistics = BlockStatistics(tower)
    statistics.add(images[:2])
    statistics.add(images[2:])
    report = statistics.report()
    assert report["images"] == 3 and len(report["blocks"]) == tower.depth
    each = [naive_parts(tower, image) for image in images]
    for number, block in enumerate(report["blocks"]):
        assert list(block) == list(PARTS)
        for part, got in block.items():
            wanted = [naive(parts[number][part]) for parts in each]
            for name in ("norm", "entropy", "maximum"):
                mean = sum(one[name] for one in wanted) / 3
                assert got[name] == pytest.approx(mean, rel=1e-9), (number, part, name)
            mean = np.mean([one["channel_mean"] for one in wanted], axis=0)
            np.testing.assert_allclose(got["channel_mean"], mean, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("token", "entropy"),
    [([1.0, -1.0, 1.0, 1.0], 1.0), ([0.0, 3.0, 0.0, 0.0], 0.0), ([0.0] * 4, 0.0)],
)
def test_entropy_goes_from_one_channel_to_all_alike(token: list[float], entropy: float) -> None:
    tokens = torch.tensor([[token]])
    numbers, _ = image_statistics(tokens)
    assert numbers[0, 1].item() == pytest.approx(entropy, abs=1e-6)
    torch.testing.assert_close(image_statistics(7 * tokens)[0][:, 1], numbers[:, 1])


def test_half_precision_is_measured_in_full() -> None:
    tokens = 200 * torch.ones(1, 5, 64, dtype=torch.float16)  # the squares are infinite in fp16
    numbers, means = image_statistics(tokens)
    assert numbers.dtype == torch.float32 and means.dtype == torch.float32
    assert numbers[0].tolist() == pytest.approx([1600, 1, 200])


def test_without_images_there_is_no_mean() -> None:
    with pytest.raises(ValueError, match="no image was added"):
        BlockStatistics(build_image_tower(tiny_arch())).report()


def report(depth: int, scale: float) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    blocks = [
        {
            part: {
                "norm": (1 + place) * scale**number,
                "entropy": 0.5 + 0.1 * place,
                "maximum": 1.0 + number + place,
                "channel_mean": generator.normal(size=32).tolist(),
            }
            for place, part in enumerate(PARTS)
        }
        for number in range(depth)
    ]
    return {"images": 2, "blocks": blocks}


@pytest.mark.parametrize(("depth", "scale"), [(3, 2.0), (12, 3.0), (1, 1.0)])
def test_the_picture_has_four_panels_with_lines(depth: int, scale: float, tmp_path: Path) -> None:
    path = draw_block_statistics(report(depth, scale), "x $1 and $2", tmp_path / "a.png")
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert picture.shape[0] > 500 and picture.shape[1] > 900
    half = [np.array_split(rows, 2, axis=1) for rows in np.array_split(picture, 2)]
    for panel in (panel for rows in half for panel in rows):
        blue = (panel[..., 2] - panel[..., 0] > 60).sum()
        assert blue > 20  # the attention's line is in each
    with pytest.raises(ValueError, match="end it with one of"):
        draw_block_statistics(report(1, 1.0), "", tmp_path / "a.txt")
