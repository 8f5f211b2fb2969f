"""Neighbours, weighted terms and maps of other blocks: golden values and the formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmclipdis.clip.towers.attention import attend, neighbour_bias
from mmclipdis.clip.towers.block_reader import read_last_block
from mmclipdis.clip.towers.readout import READOUTS, Readout

TOLERANCE = dict(rtol=0, atol=1e-10)
GOLDEN = dict(rtol=0, atol=6e-7)
K = [[1, 0], [1, 1], [0, 1], [-1, 1], [0, -1]]
V = [[1, 0], [0, 1], [2, 0], [0, 3], [1, 1]]


def heads(rows: list[list[float]], count: int = 1) -> Tensor:
    """Rows ``(L, D)`` as ``(1, heads, L, d)``."""
    return torch.tensor(rows, dtype=torch.float64).unflatten(1, (count, -1)).transpose(0, 1)[None]


def values(rows: Tensor | list[list[float]]) -> Tensor:
    return torch.as_tensor(rows, dtype=torch.float64)


def distances(grid: tuple[int, int]) -> Tensor:
    """Squared distances of the patches, counted one by one."""
    places = [(y, x) for y in range(grid[0]) for x in range(grid[1])]
    return values([[(a - c) ** 2 + (b - d) ** 2 for c, d in places] for a, b in places])


# --- NACLIP ------------------------------------------------------------------------------------


def test_golden_gaussian_of_a_small_grid_and_of_clips():
    bias = neighbour_bias((2, 3), 1.0)
    assert bias.shape == (7, 7) and not bias[0].any() and not bias[:, 0].any()
    first = [1, 0.606531, 0.135335, 0.606531, 0.367879, 0.082085]
    second = [0.367879, 0.606531, 0.367879, 0.606531, 1, 0.606531]
    torch.testing.assert_close(bias[1, 1:].double(), values(first), **GOLDEN)
    torch.testing.assert_close(bias[5, 1:].double(), values(second), **GOLDEN)
    large = neighbour_bias((14, 14), 5.0)[1:, 1:].double()
    at = {(0, 1): 0.980199, (0, 14): 0.980199, (0, 195): 0.001159}
    assert {place: round(float(large[place]), 6) for place in at} == at
    assert large[0].sum().item() == pytest.approx(45.208187, abs=2e-6)
    assert large[7 * 14 + 7].sum().item() == pytest.approx(110.068330, abs=2e-6)


@pytest.mark.parametrize(("grid", "sigma"), [((3, 5), 0.7), ((1, 4), 5.0), ((6, 2), 2.5)])
def test_the_gaussian_is_that_of_the_distance(grid, sigma):
    expected = torch.exp(-distances(grid) / (2 * sigma**2))
    got = neighbour_bias(grid, sigma)[1:, 1:].double()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-7)


def test_golden_attention_of_one_head():
    parts = {"k": heads(K), "v": heads(V)}
    bias = neighbour_bias((2, 2), 1.0)
    # with unit vectors as values the output is the weights themselves
    weights = attend(
        ("kk",), {"k": heads(K), "v": torch.eye(5).double()[None, None]}, 2**-0.5, 1, bias=bias
    )[0, 0, 0]
    wanted = [0.104139, 0.574115, 0.190996, 0.094174, 0.036576]
    torch.testing.assert_close(weights, values(wanted), **GOLDEN)
    got = attend(("kk",), parts, 2**-0.5, bias=bias)[0, 0]
    patches = [
        [0.522707, 0.893214],
        [0.919197, 0.953573],
        [0.418472, 2.092061],
        [0.921151, 0.989408],
    ]
    torch.testing.assert_close(got, values([[0.767733, 0.688214], *patches]), **GOLDEN)
    plain = [[0.680712, 0.787196], [0.732347, 1.135682], [0.620408, 1.701977], [0.890607, 0.887532]]
    got = attend(("kk",), parts, 2**-0.5, first_query=1)[0, 0]
    torch.testing.assert_close(got, values(plain), **GOLDEN)


def test_golden_attention_of_two_heads():
    k = [[1, 0, 0, 1], [0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1]]
    v = [[1, 2, 3, 4], [0, 1, 0, -1], [2, 0, 1, 1], [-1, 1, 2, 0]]
    parts = {"k": heads(k, 2), "v": heads(v, 2)}
    got = attend(("kk",), parts, 2**-0.5, 1, bias=neighbour_bias((1, 3), 5.0))
    expected = [
        [0.643759, 0.694846, 1.111463, 0.080655],
        [1.020965, 0.569864, 1.221037, 0.447964],
        [0.405790, 0.812931, 1.482966, 0.270385],
    ]
    torch.testing.assert_close(got[0].transpose(0, 1).flatten(1), values(expected), **GOLDEN)


def test_a_wide_and_a_narrow_gaussian_are_what_they_mean():
    parts = {"k": heads(K), "v": heads(V)}
    logits = 2**-0.5 * parts["k"][0, 0] @ parts["k"][0, 0].T
    for sigma, added in ((1e6, torch.ones(4, 4)), (1e-3, torch.eye(4))):
        expected = logits[1:].clone()
        expected[:, 1:] += added
        expected = expected.softmax(dim=1) @ parts["v"][0, 0]
        got = attend(("kk",), parts, 2**-0.5, 1, bias=neighbour_bias((2, 2), sigma))[0, 0]
        torch.testing.assert_close(got, expected, **TOLERANCE)
        if sigma > 1:  # CLS counts e times less
            down = logits[1:].clone()
            down[:, 0] -= 1
            torch.testing.assert_close(got, down.softmax(1) @ parts["v"][0, 0], **TOLERANCE)


# --- weighted terms and other blocks -----------------------------------------------------------


def test_golden_weighted_terms():
    """ResCLIP's RCS: E1, whose maps R are given as those of a single layer."""
    wanted_rows = torch.full((5, 5), 0.2, dtype=torch.float64)
    wanted_rows[1] = values([0.1, 0.6, 0.1, 0.1, 0.1])
    # queries that give these weights on unit keys; a share of 0 is one of 1e-18
    queries, keys = wanted_rows.clone(), torch.eye(5).double()
    queries[3] = values([1e-18, 1e-18, 1e-18, 1, 1e-18])
    layer = (queries.log()[None, None] * 2**0.5, keys[None, None])
    parts = {"k": heads(K), "v": heads(V)}
    tau, share = 2.0, 0.3
    got = attend(
        ("kk", "layers"),
        parts,
        2**-0.5,
        1,
        factors=(tau * (1 - share), tau * share),
        bias=neighbour_bias((2, 2), 1.0),
        layers=[layer],
    )
    expected = [
        [0.971790, 1.850499],
        [1.766876, 1.935002],
        [0.585860, 4.728886],
        [1.769611, 1.985172],
    ]
    torch.testing.assert_close(got[0, 0], values(expected), **GOLDEN)


def test_golden_weighted_terms_with_a_map_in_the_logits():
    """E3: ResCLIP's second pass, whose map of labels is a bias like that of the neighbours.

    The package makes no such map; what follows one is the same attention.
    """
    tau, share = 2.1, 0.7
    alike = torch.zeros(5, 5, dtype=torch.float64)
    alike[1:, 1:] = values(
        [[0.5, 0.25, 0, 0.25], [0.25, 0.5, 0.25, 0], [0, 0.25, 0.5, 0.25], [0.25, 0, 0.25, 0.5]]
    )
    bias = neighbour_bias((2, 2), 1.0) + tau * share * alike / alike.max()
    scale = tau * (1 - share) * 2**-0.5
    logits = scale * values(K) @ values(K).T + bias
    wanted = [0.445477, 3.360955, 1.787008, 0.606531, 0.657402]
    torch.testing.assert_close(logits[1], values(wanted), **GOLDEN)
    rows = torch.full((5, 5), 0.2, dtype=torch.float64)
    rows[1], rows[3] = values([0.1, 0.6, 0.1, 0.1, 0.1]), values([1e-18, 1e-18, 1e-18, 1, 1e-18])
    got = attend(
        ("kk", "layers"),
        {"k": heads(K), "v": heads(V)},
        scale,
        1,
        factors=(1.4, 0.6),
        bias=bias,
        layers=[(rows.log()[None, None] / scale, torch.eye(5).double()[None, None])],
    )
    expected = [[0.778668, 1.865118], [2.228006, 1.550582], [0.455120, 5.104147]]
    expected += [[1.700610, 2.152531]]
    torch.testing.assert_close(got[0, 0], values(expected), **GOLDEN)


EVERYTHING = Readout(
    dict(qk=0.5, kk=1.4, vv=-0.25, qkv=2.0, identity=0.1, layers=0.6),  # type: ignore[arg-type]
    layers=(0, 1, -1),
    neighbours=1.5,
    residual="cls",
    ffn=True,
)


def naive(tower, images: Tensor, readout: Readout) -> Tensor:
    """Patch tokens of the last block with explicit ``L x L`` matrices."""
    inputs = [tower.embed(images)]
    for block in tower.blocks:
        inputs.append(block(inputs[-1]))

    def split(index: int) -> dict[str, Tensor]:
        attn, block = tower.blocks[index].attn, tower.blocks[index]
        y = block.ln_1(inputs[index]) @ attn.in_proj_weight.T + attn.in_proj_bias
        parts = [part.unflatten(2, (tower.heads, -1)).transpose(1, 2) for part in y.chunk(3, 2)]
        return dict(zip("qkv", parts, strict=True))

    own, depth = split(tower.depth - 1), tower.depth
    d = own["v"].shape[-1]
    bias = torch.zeros(own["v"].shape[2], own["v"].shape[2], dtype=torch.float64)
    if readout.neighbours:
        gauss = torch.exp(-distances(tower.grid_of(images)) / (2 * readout.neighbours**2))
        bias[1:, 1:] = gauss
    total = 0
    for term, factor in zip(readout.attention, readout.factors, strict=True):
        if term == "identity":
            weights = torch.eye(len(bias), dtype=torch.float64)
        elif term == "layers":
            maps = []
            for index in readout.layers:
                parts = split(index % depth)
                maps.append((parts["q"] @ parts["k"].mT * d**-0.5).softmax(dim=-1))
            weights = sum(maps) / len(maps)
        elif term == "qkv":
            logits = sum(own[name] @ own[name].mT for name in "qkv") / 3
            weights = (d**-0.5 * logits + bias).softmax(dim=-1)
        else:
            weights = (d**-0.5 * own[term[0]] @ own[term[1]].mT + bias).softmax(dim=-1)
        total = total + factor * weights @ own["v"]
    last = tower.blocks[-1]
    out = last.attn.out_proj(total.transpose(1, 2).flatten(2))
    x = inputs[-2]
    out = out + {"cls": x[:, :1], "none": torch.zeros_like(x), "token": x}[readout.residual]
    out = out + last.mlp(last.ln_2(out)) if readout.ffn else out
    return out[:, 1:]


RCS = Readout(dict(kk=1.4, layers=0.6), layers=(0, 1), neighbours=5)  # type: ignore[arg-type]


def test_resclip_is_its_first_part_with_one_of_the_published_shares():
    """RCS: 2 ((1 - share) kk + share layers), of blocks 5 to 8 whatever the depth."""
    share = 0.4
    factors = dict(kk=2 * (1 - share), layers=2 * share)
    expected = Readout(factors, layers=(5, 6, 7, 8), neighbours=5)  # type: ignore[arg-type]
    assert READOUTS["resclip"] == expected


@pytest.mark.parametrize("size", [(64, 64), (48, 80)], ids=str)
@pytest.mark.parametrize("readout", [EVERYTHING, RCS, READOUTS["naclip"]])
def test_patches_equal_the_formula(tower, readout, size):
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    tokens = naive(tower, images, readout)
    expected = (tower.visual.ln_post(tokens) @ tower.visual.proj).transpose(1, 2)
    features = tower.forward_dense(images, readout, with_cls=True)
    grid = (size[0] // 16, size[1] // 16)
    torch.testing.assert_close(features.map, expected.unflatten(2, grid), rtol=0, atol=2e-6)
    assert torch.equal(features.cls, tower.encode_image(images))
    with torch.no_grad():  # blocks by our own functions
        got = tower.forward_dense(images, readout).map
    torch.testing.assert_close(got, features.map, **TOLERANCE)


def test_the_order_of_blocks_and_how_they_are_counted_do_not_matter(tower, images):
    one, other = (
        tower.forward_dense(images, Readout(("layers",), layers=layers)).map
        for layers in ((0, 2), (-1, -3))
    )
    torch.testing.assert_close(one, other, **TOLERANCE)
    alone = tower.forward_dense(images, Readout(("layers",), layers=-1)).map
    torch.testing.assert_close(alone, tower.forward_dense(images, READOUTS["qk"]).map, **TOLERANCE)


def test_fields_at_their_defaults_say_nothing(tower, images):
    """A factor of 1 and no neighbours are the plain terms, bit by bit."""
    plain = tower.forward_dense(images, READOUTS["kk"]).map
    for readout in (
        Readout({"kk": 1}),  # type: ignore[arg-type]
        Readout(("kk",), weights=(1.0,), layers=(), neighbours=None, affinity=None),
        Readout(("kk",), weights=1),
    ):
        assert readout == READOUTS["kk"]
        assert torch.equal(tower.forward_dense(images, readout).map, plain)
    assert (tower.forward_dense(images, READOUTS["naclip"]).map - plain).abs().max() > 1e-3


def test_a_table_cached_under_inference_mode_is_trained_with(tower):
    images = torch.randn(1, 3, 32, 112, dtype=torch.float64)  # a grid that no other test has
    with torch.inference_mode():
        expected = tower.forward_dense(images, READOUTS["naclip"]).map
    got = tower.forward_dense(images, READOUTS["naclip"]).map
    got.square().sum().backward()
    torch.testing.assert_close(got.detach(), expected.clone(), **TOLERANCE)
    assert neighbour_bias((2, 7), 5.0) is neighbour_bias((2, 7), 5.0)


@pytest.mark.parametrize("readout", [READOUTS["naclip"], RCS])
def test_half_precision_stays_close(tower, images, readout):
    tower, images = tower.float(), images.float()
    full = tower.forward_dense(images, readout).map
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = tower.forward_dense(images, readout).map
    assert (half.float() - full).abs().max() < 0.1 * full.abs().max()
    half = tower.bfloat16().forward_dense(images.bfloat16(), readout).map
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).abs().max() < 0.1 * full.abs().max()


# --- faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (dict(attention=("kk",), neighbours=0), "standard deviation in patches, above 0; got 0"),
        (dict(attention=("kk",), neighbours=-5), "above 0; got -5"),
        (dict(attention=("kk",), neighbours="5"), "neighbours must be a number, got '5'"),
        (dict(attention=("kk",), neighbours=True), "neighbours must be a number, got True"),
        (dict(attention=("identity",), neighbours=5), "changes none of the terms"),
        (dict(attention=("kk", "qq"), weights=(1.0,)), "1 factors for the terms"),
        (dict(attention=dict(kk=1), weights=(1.0,)), "a mapping of factors: leave weights out"),
        (dict(attention=dict(kk=None)), "weights must be a number, got None"),
        (dict(attention=dict(kk=float("nan"))), "weights must be a number, got nan"),
        (dict(attention=("kk", "kk")), "names a term twice"),
        (dict(attention=("kk",), layers=(1,)), "blocks need the term"),
        (dict(attention=("layers",)), "the term 'layers' needs blocks"),
        (dict(attention=("layers",), layers=("last",)), "must be numbers of blocks"),
        (dict(attention=("layers",), layers=(True,)), "must be numbers of blocks"),
    ],
    ids=str,
)
def test_fields_that_cannot_be_are_refused(fields, line):
    with pytest.raises(ValueError, match=line):
        Readout(**fields)


@pytest.mark.parametrize("index", [3, -4])
def test_a_block_that_does_not_exist_is_named(tower, images, index):
    with pytest.raises(ValueError, match=f"block {index} does not exist: the tower has 3 blocks"):
        tower.forward_dense(images, Readout(("layers",), layers=index))


def test_a_reader_that_knows_no_grid_says_so(tower, images):
    with pytest.raises(ValueError, match="needs grid="):
        read_last_block(tower.blocks[-1], tower.embed(images), READOUTS["naclip"])
