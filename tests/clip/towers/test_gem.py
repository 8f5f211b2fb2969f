"""GEM's grouped attention, once per projection, against loops; its second stream over blocks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmclipdis.clip.towers.block_reader import read_last_block
from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.towers.readout import READOUTS, DualPath, Readout
from tests.tiny import tiny_eva_arch

TOLERANCE = dict(rtol=0, atol=1e-10)


def naive(block, x: Tensor, heads: int) -> Tensor:
    """``A`` ``(L, D)`` of one image ``(L, D)``, head by head, with the matrices written out."""
    y = block.ln_1(x)
    d = x.shape[1] // heads
    sharp = y.norm(dim=1).mean() * d**-0.5
    parts = (y @ block.attn.in_proj_weight.T + block.attn.in_proj_bias).chunk(3, dim=1)
    values = parts[2].split(d, dim=1)
    outs = []
    for head in range(heads):
        grouped = []
        for part in parts:
            u = part.split(d, dim=1)[head]
            u = u / u.norm(dim=1, keepdim=True)
            u = (sharp * u @ u.T).softmax(dim=1) @ u
            u = u / u.norm(dim=1, keepdim=True)
            grouped.append((sharp * u @ u.T).softmax(dim=1) @ values[head])
        outs.append(sum(grouped) / 3)
    return block.attn.out_proj(torch.cat(outs, dim=1))


def inputs_of(tower, images: Tensor) -> list[Tensor]:
    inputs = [tower.embed(images)]
    for block in tower.blocks[:-1]:
        inputs.append(block(inputs[-1]))
    return inputs


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_the_second_stream_sums_grouped_attention_of_the_ordinary_one(tower, images, blocks):
    inputs = inputs_of(tower, images)
    path = inputs[3 - blocks].clone()
    for index in range(3 - blocks, 3):
        out = [naive(tower.blocks[index], x, tower.heads) for x in inputs[index]]
        path = path + torch.stack(out)
    expected = (tower.visual.ln_post(path[:, 1:]) @ tower.visual.proj).mT.unflatten(2, (4, 4))
    features = tower.forward_dense(images, DualPath(blocks, ("gem",)), with_cls=True)
    torch.testing.assert_close(features.map, expected, **TOLERANCE)
    assert torch.equal(features.cls, tower.encode_image(images))


def test_without_residual_it_is_a_term_of_the_last_block(tower, images):
    """ClearCLIP's row of GEM; beside another term it is weighed like any."""
    x = inputs_of(tower, images)[-1]
    expected = torch.stack([naive(tower.blocks[-1], one, tower.heads) for one in x])[:, 1:]
    got = read_last_block(tower.blocks[-1], x, Readout(("gem",)))
    torch.testing.assert_close(got, expected, **TOLERANCE)
    bias = tower.blocks[-1].attn.out_proj.bias
    both = read_last_block(tower.blocks[-1], x, Readout({"gem": 0.5, "identity": 2}))
    v = read_last_block(tower.blocks[-1], x, READOUTS["v"])
    torch.testing.assert_close(both - bias, 0.5 * (expected - bias) + 2 * (v - bias), **TOLERANCE)


def test_neighbours_enter_both_softmaxes(tower, images):
    """A Gaussian so wide that it is 1 everywhere but for CLS, whose share it takes from all."""
    x = inputs_of(tower, images)[-1]
    plain, wide, narrow = (
        read_last_block(tower.blocks[-1], x, Readout(("gem",), neighbours=sigma), grid=(4, 4))
        for sigma in (None, 1e6, 0.5)
    )
    assert (plain - wide).abs().max() > 1e-4 and (wide - narrow).abs().max() > 1e-4


def test_every_projection_is_read():
    assert Readout(("gem",)).parts == Readout(("gem",)).context == ("q", "k", "v")
    assert READOUTS["gem"] == DualPath(6, ("gem",))


def test_an_eva_tower_has_it_without_rotation():
    tower = build_image_tower(tiny_eva_arch()).double().eval()
    images = torch.randn(2, 3, 12, 20, dtype=torch.float64)
    x, rope = tower.embed(images), tower.rope(images)
    y = tower.blocks[-1].norm1(x)
    attn = tower.blocks[-1].attn
    sharp = y.norm(dim=2).mean(dim=1)[:, None, None, None] / 4
    parts = [
        getattr(attn, f"{part}_proj")(y).unflatten(2, (2, 16)).transpose(1, 2) for part in "qkv"
    ]
    total = 0
    for part in parts:
        u = part / part.norm(dim=-1, keepdim=True)
        u = (sharp * u @ u.mT).softmax(dim=-1) @ u
        u = u / u.norm(dim=-1, keepdim=True)
        total = total + (sharp * u @ u.mT).softmax(dim=-1) @ parts[2] / 3
    expected = attn.proj(attn.norm(total.transpose(1, 2).flatten(2)))[:, 1:]
    got = read_last_block(tower.blocks[-1], x, Readout(("gem",)), rope)
    torch.testing.assert_close(got, expected, **TOLERANCE)
