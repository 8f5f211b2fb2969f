"""Affinities of another model's tokens: golden values, the naive matrix, rows, grids, faults."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.clip.towers import affinity as module
from mmclipdis.clip.towers.affinity import Guide, affinity_rows, mean_cosine, mix, unit_tokens
from mmclipdis.clip.towers.block_reader import read_last_block
from mmclipdis.clip.towers.readout import READOUTS, Readout
from mmclipdis.clip.towers.readout_fields import Affinity

TOLERANCE = dict(rtol=0, atol=1e-10)
GOLDEN = dict(rtol=0, atol=6e-7)
F1 = [[2, 0], [1, 1], [0, 3], [-1, 1]]
V1 = [[1, 0], [0, 1], [2, 0], [0, 3]]
PROXY = Affinity(shift=1.2, scale=3.0, keep="positive")


def as_map(rows: list[list[float]], grid: tuple[int, int]) -> Tensor:
    """Rows ``(n, C)`` of a map ``(1, C, h, w)``."""
    return torch.tensor(rows, dtype=torch.float64).T.unflatten(1, grid)[None]


def mixed(affinity: Affinity, f: list[list[float]], grid: tuple[int, int], v: Tensor) -> Tensor:
    return mix(affinity, Guide(as_map(f, grid)), v)[0]


def close(got: Tensor, rows: list[list[float]]) -> None:
    torch.testing.assert_close(got, torch.tensor(rows, dtype=torch.float64), **GOLDEN)


def naive_matrix(affinity: Affinity, tokens: Tensor) -> Tensor:
    """``W`` ``(n, n)`` of one window ``(C, h, w)``, with ``S`` written out; no scope."""
    flat = tokens.double().flatten(1).T
    unit = flat / flat.norm(dim=1, keepdim=True)
    cosines = unit @ unit.T
    logits = affinity.scale * (cosines - affinity.shift * cosines.mean())
    rows = []
    for i, row in enumerate(logits.tolist()):
        kept = [affinity.keep == "all" or value >= 0 or i == j for j, value in enumerate(row)]
        weights = [math.exp(v) if keep else 0.0 for v, keep in zip(row, kept, strict=True)]
        rows.append([weight / sum(weights) for weight in weights])
    return torch.tensor(rows, dtype=torch.float64)


# --- golden values -----------------------------------------------------------------------------


def test_golden_matrix_and_values_on_clips_own_grid():
    unit = unit_tokens(as_map(F1, (2, 2)))
    mean = mean_cosine(unit)
    assert mean.item() == pytest.approx(0.426777, abs=6e-7)
    weights = affinity_rows(PROXY, unit, mean, None, slice(0, 4))[0]
    close(weights[:2], [[0.706549, 0.293451, 0, 0], [0.226875, 0.546251, 0.226875, 0]])
    out = [[0.706549, 0.293451], [0.680624, 0.546251], [1.092501, 0.907499], [0.586903, 2.119646]]
    close(mixed(PROXY, F1, (2, 2), as_map(V1, (2, 2))), out)


def test_golden_values_on_another_grid():
    f = [[1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [0, -1], [1, -1], [2, 1]]
    v = as_map([[1, 0], [0, 2]], (1, 2))
    resized = module.resize_values(v, (2, 4))[0].flatten(1).T
    close(resized, [[1, 0], [0.75, 0.5], [0.25, 1.5], [0, 2]] * 2)
    assert mean_cosine(unit_tokens(as_map(f, (2, 4)))).item() == pytest.approx(0.060896, abs=6e-7)
    expected = [
        *([0.553037, 0.893926], [0.472163, 1.055674], [0.277816, 1.444367], [0.283593, 1.432813]),
        *([0.706549, 0.586903], [0.603274, 0.793451], [0.498579, 1.002843], [0.499602, 1.000797]),
    ]
    close(mixed(PROXY, f, (2, 4), v), expected)


def test_a_window_whose_tokens_are_alike_keeps_its_diagonal():
    """The reference gives NaN: the mean is above 1 / shift, so that no logit is left."""
    f = [[1, 0], [1, 0.1], [1, 0.2], [1, -0.1]]
    mean = mean_cosine(unit_tokens(as_map(f, (2, 2))))
    assert mean.item() == pytest.approx(0.987785, abs=6e-7)
    assert 3 * (1 - 1.2 * mean.item()) == pytest.approx(-0.556027, abs=6e-7)
    v = as_map(V1, (2, 2))
    torch.testing.assert_close(mixed(PROXY, f, (2, 2), v), v[0].flatten(1).T, **TOLERANCE)
    same = mixed(PROXY, [[1, 1]] * 4, (2, 2), v)
    torch.testing.assert_close(same, v[0].flatten(1).T, **TOLERANCE)


def test_golden_values_of_other_shift_and_scale():
    affinity = Affinity(shift=1, scale=2, keep="positive")
    expected = [
        [0.642398, 0.357602],
        [0.790222, 0.473186],
        [0.946371, 1.053629],
        [0.715204, 1.927193],
    ]
    close(mixed(affinity, F1, (2, 2), as_map(V1, (2, 2))), expected)


def test_golden_matrix_without_shift():
    """C3: all in one mask, which are the logits of CorrCLIP within a region."""
    unit = unit_tokens(as_map([[1, 0], [1, 1], [0, 1]], (1, 3)))
    mean = mean_cosine(unit)
    assert mean.item() == pytest.approx(0.647603, abs=6e-7)
    weights = affinity_rows(
        Affinity(scale=4.0, scope="masks"), unit, mean, torch.ones(1, 3).long(), slice(0, 3)
    )
    expected = [
        [0.763429, 0.236571, 0],
        [0.191312, 0.617376, 0.191312],
        [0, 0.236571, 0.763429],
    ]
    close(weights[0], expected)


# --- the whole tower ---------------------------------------------------------------------------

AFFINITIES = [PROXY, Affinity(), Affinity(shift=0.5, scale=4.0), Affinity(scale=2, keep="positive")]


def guide_of(count: int, grid: tuple[int, int], seed: int = 3) -> Guide:
    generator = torch.manual_seed(seed)
    tokens = torch.randn(count, 6, *grid, dtype=torch.float64, generator=generator)
    return Guide(tokens + 0.5)  # a mean cosine that is not near 0


@pytest.mark.parametrize("affinity", AFFINITIES, ids=str)
@pytest.mark.parametrize("grid", [(4, 4), (6, 8), (3, 2)], ids=str)
def test_a_tower_read_by_an_affinity_equals_the_formula(tower, images, affinity, grid):
    guide = guide_of(2, grid)
    readout = Readout(("affinity",), affinity=affinity)
    features = tower.forward_dense(images, readout, guide=guide, with_tokens=True, with_cls=True)
    x = tower.embed(images)
    for block in tower.blocks[:-1]:
        x = block(x)
    attn = tower.blocks[-1].attn
    width = tower.width
    y = tower.blocks[-1].ln_1(x) @ attn.in_proj_weight[2 * width :].T
    v = (y + attn.in_proj_bias[2 * width :])[:, 1:].mT.unflatten(2, (4, 4))
    v = F.interpolate(v, size=grid, mode="bilinear", align_corners=False).flatten(2).mT
    weights = torch.stack([naive_matrix(affinity, tokens) for tokens in guide.tokens])
    tokens = attn.out_proj(weights @ v)
    expected = (tower.visual.ln_post(tokens) @ tower.visual.proj).mT.unflatten(2, grid)
    torch.testing.assert_close(features.tokens, tokens.mT.unflatten(2, grid), **TOLERANCE)
    torch.testing.assert_close(features.map, expected, **TOLERANCE)
    assert torch.equal(features.cls, tower.encode_image(images))


def test_neither_cls_nor_queries_nor_keys_matter(tower, images):
    readout, guide = READOUTS["proxyclip"], guide_of(2, (4, 4))
    x = tower.embed(images)
    read = read_last_block(tower.blocks[-1], x, readout, grid=(4, 4), guide=guide)
    changed = x.clone()
    changed[:, 0].normal_()
    with torch.no_grad():
        tower.blocks[-1].attn.in_proj_weight[: 2 * tower.width].normal_()
        tower.blocks[-1].attn.in_proj_bias[: 2 * tower.width].normal_()
    again = read_last_block(tower.blocks[-1], changed, readout, grid=(4, 4), guide=guide)
    assert torch.equal(again, read)


def test_the_identity_matrix_is_the_identity_term(tower, images):
    """Tokens at right angles that keep the diagonal alone."""
    own = torch.eye(16, dtype=torch.float64).unflatten(1, (4, 4)).expand(2, -1, -1, -1)
    affinity = Affinity(shift=10, keep="positive")
    readout = Readout(("affinity",), affinity=affinity)
    got = tower.forward_dense(images, readout, guide=Guide(own)).map
    torch.testing.assert_close(got, tower.forward_dense(images, READOUTS["v"]).map, **TOLERANCE)


def test_terms_are_weighed_beside_an_affinity(tower, images):
    guide, affinity = guide_of(2, (4, 4)), PROXY
    alone = tower.forward_dense(images, READOUTS["proxyclip"], guide=guide, with_tokens=True).tokens
    kk = tower.forward_dense(images, READOUTS["naclip"], with_tokens=True).tokens
    both = Readout(dict(affinity=0.25, kk=2.0), affinity=affinity, neighbours=5)  # type: ignore[arg-type]
    got = tower.forward_dense(images, both, guide=guide, with_tokens=True).tokens
    bias = tower.blocks[-1].attn.out_proj.bias[:, None, None]
    expected = 0.25 * (alone - bias) + 2 * (kk - bias) + bias
    torch.testing.assert_close(got, expected, **TOLERANCE)
    with pytest.raises(ValueError, match=r"has \(6, 8\) tokens and CLIP \(4, 4\).*the same grid"):
        tower.forward_dense(images, both, guide=guide_of(2, (6, 8)))


def test_cls_and_feed_forward_of_an_affinity(tower, images):
    guide = guide_of(2, (3, 2))
    plain = tower.forward_dense(images, READOUTS["proxyclip"], guide=guide, with_tokens=True).tokens
    readout = Readout(("affinity",), residual="cls", ffn=True, affinity=PROXY)
    got = tower.forward_dense(images, readout, guide=guide, with_tokens=True).tokens
    x = tower.embed(images)
    for block in tower.blocks[:-1]:
        x = block(x)
    u = plain.flatten(2).mT + x[:, :1]
    u = u + tower.blocks[-1].mlp(tower.blocks[-1].ln_2(u))
    torch.testing.assert_close(got.flatten(2).mT, u, **TOLERANCE)


@pytest.mark.parametrize("affinity", AFFINITIES[:2], ids=str)
def test_a_batch_equals_its_windows_one_by_one(affinity):
    """Each window has a mean of its own, unlike that of the reference code."""
    guide, v = guide_of(3, (5, 4)), torch.randn(3, 8, 3, 3, dtype=torch.float64)
    batch = mix(affinity, guide, v)
    for i in range(3):
        one = mix(affinity, Guide(guide.tokens[i : i + 1]), v[i : i + 1])[0]
        torch.testing.assert_close(batch[i], one, **TOLERANCE)


@pytest.mark.parametrize("scope", ["all", "masks"])
@pytest.mark.parametrize("rows", [1, 7, 20])
def test_blocks_of_rows_equal_the_whole_matrix(monkeypatch, rows, scope):
    affinity = Affinity(shift=1.0, scale=3.0, keep="positive", scope=scope)
    regions = torch.randint(0, 3, (2, 5, 4), generator=torch.manual_seed(0))
    guide = Guide(guide_of(2, (5, 4)).tokens, regions)
    v = torch.randn(2, 8, 5, 4, dtype=torch.float64)
    whole = mix(affinity, guide, v)
    seen = []
    original = module.affinity_rows

    def spy(*args):
        weights = original(*args)
        seen.append(tuple(weights.shape[:2]))
        return weights

    monkeypatch.setattr(module, "affinity_rows", spy)
    monkeypatch.setattr(module, "ROW_BYTES", rows * 20 * 8)
    torch.testing.assert_close(mix(affinity, guide, v), whole, **TOLERANCE)
    one = [(1, min(rows, 20 - start)) for start in range(0, 20, rows)]
    assert seen == one * 2
    seen.clear()
    monkeypatch.setattr(module, "ROW_BYTES", 2 * 20 * 20 * 8)
    assert torch.equal(mix(affinity, guide, v), whole) and seen == [(2, 20)]


def test_a_gradient_comes_through_in_blocks_of_rows_as_well(monkeypatch):
    guide = guide_of(2, (3, 4))
    v = torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: mix(PROXY, guide, x), v)
    (whole,) = torch.autograd.grad(mix(PROXY, guide, v).square().sum(), v)
    monkeypatch.setattr(module, "ROW_BYTES", 1)
    (rows,) = torch.autograd.grad(mix(PROXY, guide, v).square().sum(), v)
    torch.testing.assert_close(rows, whole, **TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_values_are_mixed_in_float32(dtype):
    """What autocast would do to the cosines changes which of them are kept."""
    guide, v = guide_of(2, (4, 4)), torch.randn(2, 8, 4, 4)
    wanted = mix(PROXY, Guide(guide.tokens.float()), v.to(dtype).float()).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = mix(PROXY, Guide(guide.tokens.float()), v.to(dtype))
    assert got.dtype == dtype and torch.equal(got, wanted)


def test_a_tower_in_half_precision_runs(tower, images):
    guide = Guide(guide_of(2, (6, 8)).tokens.float())
    full = tower.float().forward_dense(images.float(), READOUTS["proxyclip"], guide=guide).map
    half = tower.bfloat16().forward_dense(images.bfloat16(), READOUTS["proxyclip"], guide=guide)
    assert half.map.dtype == torch.bfloat16
    assert (half.map.float() - full).abs().max() < 0.1 * full.abs().max()


# --- faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (dict(keep="some"), "keep must be one of"),
        (dict(scope="mask"), "scope must be one of"),
        (dict(scale=0), "scale must be above 0, got 0"),
        (dict(scale="3"), "scale must be a number, got '3'"),
        (dict(shift=float("inf")), "shift must be a number, got inf"),
        (dict(merge=0.2), "joins regions: it needs scope='masks'"),
        (dict(merge="0.2", scope="masks"), "merge must be a number"),
        (dict(gamma=3), r"unknown Affinity field\(s\) \['gamma'\]; known: \['shift'"),
    ],
    ids=str,
)
def test_affinities_that_cannot_be_are_refused(fields, line):
    with pytest.raises(ValueError, match=line):
        Readout(("affinity",), affinity=fields)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (dict(attention=("affinity",)), "needs affinity=dict"),
        (dict(attention=("qq",), affinity=dict()), "that needs the term"),
        (dict(attention=("affinity",), affinity=dict(), residual="token"), "another grid"),
    ],
    ids=str,
)
def test_fields_that_contradict_an_affinity_are_refused(fields, line):
    with pytest.raises(ValueError, match=line):
        Readout(**fields)


def test_a_guide_that_is_missing_or_of_other_windows_is_refused(tower, images):
    with pytest.raises(ValueError, match="nothing to make it of: give the backbone a vision"):
        tower.forward_dense(images, READOUTS["proxyclip"])
    with pytest.raises(ValueError, match="a guide of 3 windows for values of 2"):
        tower.forward_dense(images, READOUTS["proxyclip"], guide=guide_of(3, (4, 4)))
    readout = Readout(("affinity",), affinity=Affinity(scope="masks"))
    with pytest.raises(ValueError, match="scope='masks' needs the masks of the photo"):
        tower.forward_dense(images, readout, guide=guide_of(2, (4, 4)))
