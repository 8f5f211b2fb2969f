"""DeCLIP spec, goldens G1, G2, G4, G5: toy towers filled by a hash, every readout at two sizes."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from mmclipdis.clip.towers.build import OpenCLIPViT, build_image_tower
from mmclipdis.clip.towers.readout import READOUTS, Readout
from mmclipdis.clip.towers.rotary import rotary_table
from mmclipdis.clip.towers.timm_vit import TimmViT
from tests.tiny import tiny_eva_arch

EVA_EMBEDDING = {
    16: [0.92955, 0.10118, -0.62602, -1.14911, -0.00585, -0.40105, 0.63971, 1.44325],
    24: [0.95782, -1.0202, -0.70427, -0.48278, -0.39132, -0.32839, 0.37791, 1.85459],
}
# (mode, scale): f[0, :3, 0, 0], sum of the map, sum of the unit-norm map; at 16 px and at 24 px
EVA_DENSE = {
    ("vanilla", "sqrt"): (
        [0.46416, -0.50956, -0.91062, -29.7994, -12.3865],
        [0.64517, -1.98373, -1.00747, -83.3924, -30.6907],
    ),
    ("maskclip", "sqrt"): (
        [0.48797, -0.64672, -0.83352, -33.3308, -13.8689],
        [0.15474, -1.85505, -0.19956, -87.8317, -31.8584],
    ),
    ("qq", "none"): (
        [0.99004, 0.75054, -1.39677, -26.4199, -11.8253],
        [-1.36116, -0.1041, 1.48955, -9.6896, -11.8559],
    ),
    ("qq", "sqrt"): (
        [0.50687, 0.54726, -1.01255, -25.4265, -13.5066],
        [-0.78936, -0.02617, 0.88232, 3.8409, -8.7097],
    ),
    ("kk", "sqrt"): (
        [0.66173, 0.51352, -0.47272, -17.8298, -11.0036],
        [1.63027, 0.40395, -0.24743, 35.1744, 5.047],
    ),
    ("vv", "sqrt"): (
        [0.73471, 0.6176, -0.54528, -12.5505, -7.7743],
        [-0.53705, 0.18973, 0.48625, 50.9806, 8.068],
    ),
    ("csa", "none"): (
        [1.21958, 0.73719, -0.84626, -21.0044, -9.71],
        [-1.29876, -0.09039, 1.47867, 4.0023, -6.8883],
    ),
    ("csa", "sqrt"): (
        [0.59808, 0.53631, -0.74898, -21.621, -12.5656],
        [0.23755, 0.15275, 0.51153, 19.8567, -2.1675],
    ),
    ("all", "sqrt"): (
        [0.60368, 0.59447, -0.68108, -19.6845, -11.5527],
        [-0.40542, 0.13909, 0.67193, 33.7442, 1.246],
    ),
}
# R[0, 1], R[0, 5] (None: not published), mean of R, L_context against the identity
EVA_CONTEXT = {
    ("qq", 16): (0.70210, 0.81242, 0.65834, 2.53809),
    ("qq", 24): (0.64882, 0.55841, 0.45119, 2.89302),
    ("csa", 16): (0.66028, None, 0.60436, 2.31484),
    ("csa", 24): (0.45569, None, 0.43973, 2.80126),
}
# official name of a tensor of the EVA tower, by open_clip's (spec 4.3)
OFFICIAL = {
    "attn.norm.": "attn.inner_attn_ln.",
    "mlp.norm.": "mlp.ffn_ln.",
    "mlp.fc1_g.": "mlp.w1.",
    "mlp.fc1_x.": "mlp.w2.",
    "mlp.fc2.": "mlp.w3.",
    "q_proj.bias": "q_bias",
    "v_proj.bias": "v_bias",
}
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


def fill(names: dict[str, str], module: torch.nn.Module) -> None:
    """Fill each tensor of ``module`` by the rank of its official name, ``{own: official}``."""
    state = module.state_dict()
    for index, name in enumerate(sorted(names, key=names.__getitem__)):
        value = 0.6 * hash_fill(state[name].numel(), index).reshape(state[name].shape)
        one_dim_weight = state[name].ndim == 1 and names[name].endswith(".weight")
        state[name] = (value + (1 if one_dim_weight else 0)).float()
    module.load_state_dict(state)


def official(name: str) -> str:
    name = name.removeprefix("trunk.")
    for own, theirs in OFFICIAL.items():
        name = name.replace(own, theirs)
    return name


@pytest.fixture
def toy_eva() -> TimmViT:
    tower = build_image_tower(tiny_eva_arch()).eval()
    assert isinstance(tower, TimmViT)
    names = {name: official(name) for name in tower.visual.state_dict()}
    assert len(names) == 71
    fill(names, tower.visual)
    return tower


@pytest.fixture
def toy() -> OpenCLIPViT:
    vision = dict(image_size=16, patch_size=4, width=32, head_width=16, layers=3)
    text = dict(context_length=8, vocab_size=16, width=16, heads=1, layers=1)
    arch = dict(embed_dim=8, quick_gelu=True, vision_cfg=vision, text_cfg=text)
    tower = build_image_tower(arch, positions="size").eval()
    state = tower.visual.state_dict()
    assert len(state) == 44
    fill({name: name for name in state}, tower.visual)
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


@pytest.mark.parametrize("side", [16, 24])
def test_image_embedding_of_eva(toy_eva, side):
    got = toy_eva.encode_image(image(side))
    expected = torch.tensor([EVA_EMBEDDING[side]])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def test_the_antialias_of_timm_is_measurably_another_rule(toy_eva):
    expected = toy_eva.encode_image(image(24))
    toy_eva.positions = "antialias"
    off = (toy_eva.encode_image(image(24)) - expected).abs().max().item()
    assert 0.045 < off < 0.0495


@pytest.mark.parametrize("side", [16, 24])
@pytest.mark.parametrize(("mode", "scale"), sorted(EVA_DENSE))
def test_dense_map_of_eva(toy_eva, mode, scale, side):
    readout = dataclasses.replace(READOUTS[mode], scale=scale)
    dense = toy_eva.forward_dense(image(side), readout).map
    unit = torch.nn.functional.normalize(dense, dim=1)
    got = [*dense[0, :3, 0, 0].tolist(), dense.sum().item(), unit.sum().item()]
    assert got == pytest.approx(EVA_DENSE[mode, scale][side == 24], rel=0, abs=1e-4)


@pytest.mark.parametrize(("mode", "side"), sorted(EVA_CONTEXT))
def test_correlation_of_eva_context(toy_eva, mode, side):
    readout = READOUTS[mode]
    context = toy_eva.forward_dense(image(side), readout, context=readout.context).context
    assert "".join(context) == {"qq": "q", "csa": "qk"}[mode]
    correlations = []
    for part in context.values():
        rows = torch.nn.functional.normalize(part.flatten(2).transpose(1, 2), dim=2)[0]
        correlations.append(rows @ rows.T)
    mean = torch.stack(correlations).mean(dim=0)
    against_identity = (torch.eye(len(mean)) - mean).norm(dim=1).mean()
    one, five, average, distance = EVA_CONTEXT[mode, side]
    assert mean[0, 1].item() == pytest.approx(one, abs=1e-4)
    assert five is None or mean[0, 5].item() == pytest.approx(five, abs=1e-4)
    assert mean.mean().item() == pytest.approx(average, abs=1e-4)
    assert against_identity.item() == pytest.approx(distance, abs=1e-4)


def test_rotary_table():
    sine, cosine = rotary_table((2, 2), 64, (16, 16)).chunk(2, dim=1)
    assert cosine[1, :4].tolist() == [1.0] * 4
    assert cosine[1, 32:36].tolist() == pytest.approx([-0.1455, -0.1455, -0.21204, -0.21204], 1e-4)
    assert sine[2, :4].tolist() == pytest.approx([0.98936, 0.98936, -0.97726, -0.97726], 1e-4)
    assert sine[2, 32:36].tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("side", "cosines", "sines", "probes"),
    [
        (14, 9147.386, 2097.197, {}),
        (24, 26603.785, 6284.209, {("cos", 25, 0): 0.785887}),
        (35, 56319.32, 13463.94, {("cos", 36, 0): 0.897317, ("sin", 36, 2): 0.254248}),
    ],
)
def test_sums_of_rotary_tables(side, cosines, sines, probes):
    sine, cosine = rotary_table((side, side), 64, (16, 16)).chunk(2, dim=1)
    assert cosine.double().sum().item() == pytest.approx(cosines, rel=1e-5)
    assert sine.double().sum().item() == pytest.approx(sines, rel=1e-5)
    for (table, row, column), value in probes.items():
        got = {"sin": sine, "cos": cosine}[table][row, column].item()
        assert got == pytest.approx(value, abs=1e-5)
