"""SC-CLIP's readout: golden values of its parts, the whole against a naive one, grids, faults."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmclipdis.clip.towers import affinity as rows_module
from mmclipdis.clip.towers.affinity import Guide, unit_tokens
from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.towers.readout import READOUTS, get_readout
from mmclipdis.clip.towers.scclip import aggregate, fill, lof, outliers, twice_attended
from mmclipdis.clip.towers.self_calibrated import SelfCalibrated
from mmclipdis.clip.weights.trainable import freeze_unread, split_qkv
from tests.tiny import tiny_eva_arch

TOLERANCE = dict(rtol=0, atol=1e-10)
GOLDEN = dict(rtol=0, atol=6e-7)
F1 = [[2, 0], [1, 1], [0, 3], [-1, 1]]
Y = [[1, 0], [0, 1], [2, 0], [0, 3]]
SMALL = SelfCalibrated(deep=1, mid=0, summed=(0, 1), k=4, outliers=0.2)


def values(rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# --- golden values -----------------------------------------------------------------------------


def test_golden_local_outlier_factors():
    tokens = [
        [0, 0],
        [1, 0],
        [0, 1],
        [1, 1.1],
        [0.5, 0.4],
        [5, 5],
        [0.2, 0.9],
        [0.8, 0.1],
        [0.4, 0.6],
    ]
    expected = [
        *(1.842794, 2.041248, 1.831495, 2.221814, 0.963923),
        *(100.186076, 0.873292, 1.018859, 0.802314),
    ]
    got = lof(values([tokens]), 3)
    torch.testing.assert_close(got[0], values(expected), rtol=0, atol=6e-7)
    assert outliers(values([tokens]), 3, 0.05)[0].nonzero().flatten().tolist() == [5]


@pytest.mark.parametrize("share", [0, 0.05, 0.2, 0.5, 1])
def test_outliers_are_those_above_a_quantile(share):
    tokens = torch.randn(3, 21, 4, dtype=torch.float64, generator=torch.manual_seed(0))
    factors = lof(tokens, 3)
    limit = factors.quantile(1 - share, dim=1, keepdim=True)
    assert torch.equal(outliers(tokens, 3, share), factors > limit)


def test_golden_filling():
    rows = torch.arange(9.0).double()
    rows[4], rows[0] = 100, -50
    outlying = torch.zeros(1, 9, dtype=torch.bool)
    outlying[0, [0, 4]] = True
    got = fill(rows[None, :, None], outlying, (3, 3))[0, :, 0]
    assert got[0].item() == pytest.approx(2) and got[4].item() == pytest.approx(4.571429, abs=6e-7)
    sound = [1, 2, 3, 5, 6, 7, 8]
    assert torch.equal(got[sound], rows[sound])


def test_golden_aggregation():
    unit = unit_tokens(values(F1).T.unflatten(1, (2, 2))[None])
    got = aggregate(unit, values([Y]), 0.4)[0]
    expected = [
        [0.585786, 0.414213],
        [0.878679, 0.414213],
        [0.828427, 1.171572],
        [0.828427, 1.757358],
    ]
    torch.testing.assert_close(got, values(expected), **GOLDEN)


class Given:
    """A block whose projections are given and whose output projection is the identity."""

    heads = 1

    def norm(self, x: Tensor) -> Tensor:
        return x

    def project(self, normed: Tensor, parts: str) -> dict[str, Tensor]:
        k = values([[[1, 1], [0, 1], [-1, 1], [0, -1]]]).expand(len(normed), -1, -1)
        return {"k": k.contiguous(), "v": normed}

    def rotate(self, x: Tensor) -> Tensor:
        return x

    def merge(self, x: Tensor) -> Tensor:
        return x


def test_golden_attention_by_two_matrices():
    guide = Guide(values(F1).T.unflatten(1, (2, 2))[None])
    got = twice_attended(Given(), values([Y, Y[::-1]]), guide)  # type: ignore[arg-type]
    expected = [
        [0.753648, 0.376430],
        [0.802830, 0.539744],
        [1.150519, 0.683454],
        [0.504326, 1.997492],
    ]
    torch.testing.assert_close(got[0], values(expected), **GOLDEN)
    alone = twice_attended(Given(), values([Y[::-1]]), guide)  # type: ignore[arg-type]
    torch.testing.assert_close(got[1], alone[0], **TOLERANCE)


# --- the whole against a naive one ---------------------------------------------------------------


def naive_outliers(tokens: Tensor, k: int, share: float) -> set[int]:
    """One window ``(N, D)``, distance by distance."""
    tokens, count = tokens.detach(), len(tokens)
    distances = [[float(((a - b) ** 2).sum()) for b in tokens] for a in tokens]
    near = [sorted((j for j in range(count) if j != i), key=lambda j: distances[i][j])[:k]
            for i in range(count)]  # fmt: skip
    reach = [distances[i][near[i][-1]] for i in range(count)]
    factors = [sum(reach[i] / reach[j] for j in near[i]) / k for i in range(count)]
    place = (1 - share) * (count - 1)
    ranked, low = sorted(factors), math.floor(place)
    limit = ranked[low] + (place - low) * (ranked[min(low + 1, count - 1)] - ranked[low])
    return {i for i, factor in enumerate(factors) if factor > limit}


def naive_fill(tokens: Tensor, found: set[int], grid: tuple[int, int]) -> Tensor:
    out = tokens.clone()
    for i in found:
        y, x = divmod(i, grid[1])
        around = [
            (y + dy) * grid[1] + x + dx
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if (dy or dx) and 0 <= y + dy < grid[0] and 0 <= x + dx < grid[1]
        ]
        sound = [j for j in around if j not in found]
        if sound:
            out[i] = tokens[sound].mean(dim=0)
    return out


def naive_window(inputs: list[Tensor], block, grid: tuple[int, int], heads: int) -> Tensor:
    """``Z`` ``(N, D)`` of one window from the inputs of all blocks and the output of the last."""
    outputs, x = inputs[1:], inputs[-2]
    found = naive_outliers(x[1:], SMALL.k, SMALL.outliers)
    assert found
    deep, mid = naive_fill(outputs[1][1:], found, grid), outputs[0][1:]

    def cosines(y: Tensor) -> Tensor:
        unit = y / y.norm(dim=1, keepdim=True)
        return unit @ unit.T

    def agg(s: Tensor, y: Tensor) -> Tensor:
        kept = s * (s >= 0.4)
        return kept / (kept.sum(dim=1, keepdim=True) + 1e-6) @ y

    s8, s3 = cosines(deep), cosines(mid)
    logits = 3 * (s8 - s8.mean())
    logits[logits < 0] = -torch.inf
    logits.fill_diagonal_(0).add_(torch.diag(3 * (1 - s8.mean()).expand(len(s8))))

    def attended(y: Tensor) -> Tensor:
        projected = block.ln_1(y) @ block.attn.in_proj_weight.T + block.attn.in_proj_bias
        _, k, v = projected.chunk(3, dim=1)
        outs = []
        for k_h, v_h in zip(k.chunk(heads, 1), v.chunk(heads, 1), strict=True):
            keys = (k_h @ k_h.T * k_h.shape[1] ** -0.5).softmax(dim=1)
            outs.append(0.5 * (logits.softmax(dim=1) + keys) @ v_h)
        return block.attn.out_proj(torch.cat(outs, dim=1))

    summed = outputs[0] + outputs[1]
    a = agg(s3, attended(agg(s8, naive_fill(x[1:], found, grid))) + 0.3 * x[:1])
    return a + agg(s3, attended(summed[1:]) + 0.3 * summed[:1])


@pytest.mark.parametrize("size", [(64, 64), (48, 112), (112, 48)], ids=str)
def test_a_window_of_any_shape_equals_the_formula(tower, size):
    images = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.manual_seed(4))
    grid = (size[0] // 16, size[1] // 16)
    inputs = [tower.embed(images)]
    for block in tower.blocks:
        inputs.append(block(inputs[-1]))
    tokens = torch.stack(
        [naive_window([x[i] for x in inputs], tower.blocks[-1], grid, tower.heads) for i in (0, 1)]
    )
    expected = (tower.visual.ln_post(tokens) @ tower.visual.proj).mT.unflatten(2, grid)
    features = tower.forward_dense(images, SMALL, with_cls=True, with_tokens=True, context=("q",))
    torch.testing.assert_close(features.tokens, tokens.mT.unflatten(2, grid), **TOLERANCE)
    torch.testing.assert_close(features.map, expected, **TOLERANCE)
    assert torch.equal(features.cls, tower.encode_image(images))
    assert features.context["q"].shape == (2, 64, *grid)


def test_blocks_of_rows_equal_the_whole_matrices(tower, images, monkeypatch):
    whole = tower.forward_dense(images, SMALL).map
    monkeypatch.setattr(rows_module, "ROW_BYTES", 3 * 2 * 16 * 8)
    torch.testing.assert_close(tower.forward_dense(images, SMALL).map, whole, **TOLERANCE)


def test_the_output_of_the_last_block_can_be_one_of_those_read(tower, images):
    one, other = (
        tower.forward_dense(images, SelfCalibrated(deep, 0, summed, k=4)).map
        for deep, summed in ((-1, (1, 2)), (2, (-2, -1)))
    )
    assert torch.equal(one, other)
    assert not torch.equal(one, tower.forward_dense(images, SelfCalibrated(1, 0, (1, 2), 4)).map)


def test_a_window_of_tokens_that_are_all_alike_has_no_outliers():
    same = torch.ones(1, 9, 4, dtype=torch.float64)
    assert lof(same, 3).tolist() == [[1.0] * 9]
    assert not outliers(same, 3, 0.05).any()
    found = torch.ones(1, 9, dtype=torch.bool)
    assert torch.equal(fill(same, found, (3, 3)), same)  # no sound neighbour: unchanged


def test_half_precision_stays_close(tower, images):
    tower, images = tower.float(), images.float()
    full = tower.forward_dense(images, SMALL).map
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = tower.forward_dense(images, SMALL).map
    assert half.isfinite().all() and (half.float() - full).abs().mean() < 0.1 * full.abs().mean()
    assert tower.bfloat16().forward_dense(images.bfloat16(), SMALL).map.isfinite().all()


def test_an_eva_tower_is_read_by_its_own_projections():
    """Its keys have no rotation and no bias, and its heads a norm: the block's own modules."""
    tower = build_image_tower(tiny_eva_arch()).double().eval()
    images = torch.randn(2, 3, 12, 20, dtype=torch.float64)
    features = tower.forward_dense(images, SMALL, with_tokens=True)
    rope, x = tower.rope(images), tower.embed(images)
    outputs = []
    for block in tower.blocks:
        before, x = x, block(x, rope=rope)
        outputs.append(x)
    found = outliers(before[:, 1:], SMALL.k, SMALL.outliers)
    deep = fill(outputs[1][:, 1:], found, (3, 5)).mT.unflatten(2, (3, 5))
    u8, u3 = unit_tokens(deep), unit_tokens(outputs[0][:, 1:].mT.unflatten(2, (3, 5)))
    s8 = u8 @ u8.mT
    logits = 3 * (s8 - s8.mean(dim=(1, 2), keepdim=True))
    eye = torch.eye(15, dtype=torch.bool)
    weights = logits.masked_fill((logits < 0) & ~eye, -torch.inf).softmax(dim=-1)
    attn, summed = tower.blocks[-1].attn, outputs[0] + outputs[1]

    def attended(y: Tensor) -> Tensor:
        y = tower.blocks[-1].norm1(y)
        k = attn.k_proj(y).unflatten(2, (2, -1)).transpose(1, 2)
        v = attn.v_proj(y).unflatten(2, (2, -1)).transpose(1, 2)
        keys = (k @ k.mT / 4).softmax(dim=-1)
        out = 0.5 * (weights[:, None] + keys) @ v
        return attn.proj(attn.norm(out.transpose(1, 2).flatten(2)))

    a = attended(aggregate(u8, fill(before[:, 1:], found, (3, 5)), 0.4)) + 0.3 * before[:, :1]
    m = attended(summed[:, 1:]) + 0.3 * summed[:, :1]
    tokens = aggregate(u3, a, 0.4) + aggregate(u3, m, 0.4)
    torch.testing.assert_close(features.tokens, tokens.mT.unflatten(2, (3, 5)), **TOLERANCE)


# --- as a value of a config ----------------------------------------------------------------------


def test_a_config_names_it_by_the_block_of_the_affinity():
    assert get_readout("scclip") == SelfCalibrated() == READOUTS["scclip"]
    assert get_readout(dict(deep=2, mid=1, summed=[1, 2])) == SelfCalibrated(2, 1, (1, 2))
    assert get_readout(dict(deep=2, mid=1, summed=2)) == SelfCalibrated(2, 1, (2,))


def test_queries_of_the_last_block_are_frozen(tower):
    split_qkv(tower)
    frozen = freeze_unread(tower.blocks[-1], SMALL)
    assert "q_proj_weight" in frozen and "mlp.c_fc.weight" in frozen
    assert not {"k_proj_weight", "v_proj_weight", "ln_1.weight"} & set(frozen)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (dict(deep="8"), "deep must be numbers of blocks, got '8'"),
        (dict(deep=8, mid=True), "mid must be numbers of blocks"),
        (dict(deep=8, summed=()), "summed must be numbers of blocks"),
        (dict(deep=8, k=0), "k must be a whole number above 0, got 0"),
        (dict(deep=8, outliers=5), "outliers must be from 0 to 1, got 5"),
        (dict(deep=8, threshold="high"), "threshold must be a number, got 'high'"),
        (dict(deep=8, tau=1), r"unknown SelfCalibrated field\(s\) \['tau'\]"),
    ],
    ids=str,
)
def test_fields_that_cannot_be_are_refused(fields, line):
    with pytest.raises(ValueError, match=line):
        get_readout(fields)


def test_what_a_tower_or_a_window_has_too_little_of_is_named(tower, images):
    with pytest.raises(ValueError, match="block 8 does not exist: the tower has 3 blocks"):
        tower.forward_dense(images, READOUTS["scclip"])
    readout = SelfCalibrated(1, 0, (0, 1))
    with pytest.raises(ValueError, match="its 30 nearest, and a window has 16 patches only"):
        tower.forward_dense(images, readout)


def test_an_export_of_one_size_keeps_the_batch_open(tower, images):
    class Program(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = tower

        def forward(self, images: Tensor) -> Tensor:
            return self.tower.forward_dense(images, SMALL).map

    batch = {"images": {0: torch.export.Dim("batch", max=64)}}
    found = torch.export.export(Program().eval(), (images[:2],), dynamic_shapes=batch).module()
    with torch.no_grad():
        for some in (images[:1], torch.cat([images, images])):
            torch.testing.assert_close(found(some), tower.forward_dense(some, SMALL).map)
