"""DeCLIP spec, golden G4: a toy OpenAI ViT filled by a hash, self-self readouts at two sizes."""

from __future__ import annotations

import math

import pytest
import torch

from mmclipdis.clip.readout import READOUTS, Readout
from mmclipdis.clip.towers import OpenCLIPViT, build_image_tower

EMBEDDING_16 = [0.79908, 2.48606, 1.41252, 0.81671, 0.25621, 1.3227, -0.42294, 0.10712]
# (mode, side): f[0, :3, 0, 0] and the sum of the map
DENSE = {
    ("qq", 16): ([0.39069, 0.14837, 0.46106], 36.235),
    ("kk", 16): ([0.03102, -0.04024, 0.52029], 36.8342),
    ("declip", 16): ([-0.03034, -0.23609, 0.17863], 17.1507),
    ("maskclip", 16): ([-0.00461, 0.66427, 1.56623], 89.5686),
    ("qq", 24): ([0.4006, 0.99073, 0.43859], 37.952),
    ("declip", 24): ([0.06241, 1.00215, -0.09242], -9.5165),
}


def hash_fill(count: int, index: int) -> torch.Tensor:
    j = torch.arange(count, dtype=torch.float64)
    value = torch.sin((j + 1) * 12.9898 + (index + 1) * 78.233) * 43758.5453
    return value - value.floor() - 0.5


@pytest.fixture
def toy() -> OpenCLIPViT:
    vision = dict(image_size=16, patch_size=4, width=32, head_width=16, layers=3)
    text = dict(context_length=8, vocab_size=16, width=16, heads=1, layers=1)
    arch = dict(embed_dim=8, quick_gelu=True, vision_cfg=vision, text_cfg=text)
    tower = build_image_tower(arch, positions="size").eval()
    state = tower.visual.state_dict()
    assert len(state) == 44
    for index, name in enumerate(sorted(state)):
        value = 0.6 * hash_fill(state[name].numel(), index).reshape(state[name].shape)
        one_dim_weight = state[name].ndim == 1 and name.endswith(".weight")
        state[name] = (value + (1 if one_dim_weight else 0)).float()
    tower.visual.load_state_dict(state)
    return tower


def image(side: int) -> torch.Tensor:
    return (2 * hash_fill(3 * side * side, 99)).float().reshape(1, 3, side, side)


def test_image_embedding(toy):
    expected = torch.tensor([EMBEDDING_16])
    torch.testing.assert_close(toy.encode_image(image(16)), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("mode", "side"), sorted(DENSE))
def test_dense_map(toy, mode, side):
    readout = READOUTS[mode]
    assert isinstance(readout, Readout)
    dense = toy.forward_dense(image(side), readout).map
    corner, total = DENSE[mode, side]
    torch.testing.assert_close(dense[0, :3, 0, 0], torch.tensor(corner), rtol=0, atol=1e-4)
    assert math.isclose(dense.sum().item(), total, abs_tol=2e-3)
