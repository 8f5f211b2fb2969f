"""CorrCLIP's branches: the golden values, and a naive tower in float64, one window at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.clip.towers import attention, block_reader
from mmclipdis.clip.towers.affinity import Guide, merged
from mmclipdis.clip.towers.block_reader import BlockReader
from mmclipdis.clip.towers.branches import Beside, RegionCopies, run_beside
from mmclipdis.clip.towers.build import OpenCLIPViT, build_image_tower
from mmclipdis.clip.towers.readout import READOUTS, Readout
from mmclipdis.clip.towers.readout_fields import Affinity, Branches
from mmclipdis.clip.towers.regions import resize_nearest
from tests.clip.towers.naive import naive_block, naive_matrix, naive_merged
from tests.tiny import tiny_arch, tiny_eva_arch

CORRCLIP: Any = READOUTS["corrclip"]
READOUT = replace(  # eps so that two of three regions of the first window are one
    CORRCLIP,
    affinity=Affinity(shift=0.3, scale=4.0, scope="masks", merge=0.3),
    branches=Branches(spatial=0.7, semantic=0.3, blocks=(0, 2)),
)


@pytest.fixture(scope="module")
def deep() -> OpenCLIPViT:
    """Five blocks, float64, every parameter random."""
    torch.manual_seed(0)
    tower = build_image_tower(tiny_arch(layers=5)).double().eval()
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return tower


@pytest.fixture(scope="module")
def guide() -> Guide:
    """Tokens on 6 x 8 for CLIP's 4 x 4, and two windows with 4 and 2 regions."""
    generator = torch.manual_seed(3)
    tokens = torch.randn(2, 5, 6, 8, dtype=torch.float64, generator=generator)
    regions = torch.zeros(2, 6, 8, dtype=torch.int64)
    regions[0, :3, :4], regions[0, 3:, :4], regions[0, 3:, 5:] = 4, 2, 9
    regions[1, :, 3:] = 7
    return Guide(tokens, regions)


def picture(tower: Any, count: int = 2) -> Tensor:
    height, width = tower.image_size
    generator = torch.manual_seed(1)
    dtype = next(tower.parameters()).dtype
    return torch.randn(count, 3, height, width, dtype=dtype, generator=generator)


def naive_window(tower: OpenCLIPViT, image: Tensor, guide: Guide, readout: Any) -> Tensor:
    """The dense map (E, gh, gw) of one window: loops over blocks, copies, heads and tokens."""
    unit = F.normalize(guide.tokens[0].flatten(1).T, dim=-1)
    labels = naive_merged(unit, guide.regions[0].flatten().tolist(), readout.affinity.merge)
    (gh, gw), (h, w) = guide.grid, tower.grid_of(image)
    on_clip = [labels[(i * gh // h) * gw + j * gw // w] for i in range(h) for j in range(w)]
    with torch.no_grad():
        x = tower.embed(image)[0]
        copies = dict.fromkeys(sorted(set(on_clip)), x[0])
        outputs = []
        for block in tower.blocks:
            inside = {n: [0, *(i + 1 for i, x in enumerate(on_clip) if x == n)] for n in copies}
            copies = {n: naive_block(block, x, copies[n], inside[n]) for n in copies}
            last_input = x
            x = torch.stack([naive_block(block, x, token, range(len(x))) for token in x])
            outputs.append(x)
        mean = sum(outputs[i] for i in readout.branches.blocks) / len(readout.branches.blocks)
        block = tower.blocks[-1]
        weight, bias = block.attn.in_proj_weight.chunk(3)[2], block.attn.in_proj_bias.chunk(3)[2]

        def mixed(tokens: Tensor) -> Tensor:
            values = (block.ln_1(tokens) @ weight.T + bias)[1:].T.reshape(1, -1, h, w)
            values = F.interpolate(values, (gh, gw), mode="bilinear")[0].flatten(1).T
            return block.attn.out_proj(naive_matrix(unit, labels, readout.affinity) @ values)

        clip_of = [(i * h // gh) * w + j * w // gw for i in range(gh) for j in range(gw)]
        semantic = torch.stack([copies[on_clip[place]] for place in clip_of])
        norm, factors = tower.visual.ln_post, readout.branches
        total = norm(mixed(last_input)) + factors.spatial * norm(mixed(mean))
        total = total + factors.semantic * norm(semantic)
        return (total @ tower.visual.proj).T.reshape(-1, gh, gw)


def single(guide: Guide, i: int) -> Guide:
    return Guide(guide.tokens[i : i + 1], guide.regions[i : i + 1])


def test_the_tower_equals_a_naive_one_window_by_window(deep, guide):
    images = picture(deep)
    with torch.no_grad():
        got = deep.forward_dense(images, READOUT, guide=guide).map
    assert [len(labels.unique()) for labels in guide.regions] == [4, 2]
    _, once = merged(READOUT.affinity, guide)
    assert [len(labels.unique()) for labels in once.regions] == [3, 2]
    for i in (0, 1):
        expected = naive_window(deep, images[i : i + 1], single(guide, i), READOUT)
        torch.testing.assert_close(got[i], expected, rtol=0, atol=1e-10)


def test_a_batch_equals_its_windows_one_by_one(deep, guide):
    images = picture(deep)
    together = deep.forward_dense(images, READOUT, guide=guide).map
    for i in (0, 1):
        alone = deep.forward_dense(images[i : i + 1], READOUT, guide=single(guide, i)).map
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("gradients", [False, True])
def test_the_ordinary_stream_is_the_same_to_the_last_bit(deep, guide, gradients):
    """C6; the image embedding and the outputs of the blocks, with copies and without."""
    asked = dict(intermediates=(1, 3, 4), with_cls=True)
    with torch.set_grad_enabled(gradients):
        plain = deep.forward_dense(picture(deep), READOUTS["vanilla"], **asked)
        branched = deep.forward_dense(picture(deep), READOUT, guide=guide, **asked)
    for one, other in zip(plain.intermediates, branched.intermediates, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(plain.cls, branched.cls)


def test_nearest_takes_the_golden_places():
    """C6."""
    assert resize_nearest(torch.arange(6)[None], (1, 4))[0].tolist() == [0, 1, 3, 4]


class _Identity:
    """A block of one head of width 2 without norms, projections, residual or feed-forward."""

    heads, after = 1, None

    def norm(self, x: Tensor) -> Tensor:
        return x

    project = staticmethod(lambda x, parts: dict.fromkeys(parts, x))
    rotate = merge = norm

    def feed_forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def test_golden_c4(monkeypatch):
    """A copy of CLS that sees CLS and the patches 0 and 3 of its region."""
    for module in (attention, block_reader):
        monkeypatch.setattr(module, "view_of", lambda block, rope=None: _Identity())
    x = torch.tensor([[[1, 0], [0, 1], [1, 1], [2, 0], [0, 2]]], dtype=torch.float64)
    copies = RegionCopies.of(x, torch.tensor([[[5, 0], [0, 5]]]))
    assert copies.seen[0, 0].int().tolist() == [[1, 0, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert copies.of_patch.tolist() == [[[1, 0], [0, 1]]]
    out = BlockReader(torch.nn.Identity(), x).beside(copies.tokens, copies.seen) - copies.tokens
    golden = torch.tensor([0.503490, 0.744765], dtype=torch.float64)
    torch.testing.assert_close(out[0, 1], golden, rtol=0, atol=6e-7)


def test_a_copy_that_sees_everything_is_cls(deep):
    """One region: what its copy is after all blocks is the CLS token itself."""
    embedded = deep.embed(picture(deep))
    regions = torch.zeros(2, 4, 4, dtype=torch.int64)
    beside = Beside.of(Branches(spatial=0), deep.depth, embedded, regions, (4, 4))
    x, _, beside = run_beside(deep.blocks, embedded, beside)
    torch.testing.assert_close(beside.copies.tokens, x[:, :1], rtol=0, atol=1e-12)
    assert beside.mean is None


def test_each_branch_can_be_left_out(deep, guide):
    images = picture(deep)

    def dense(**factors: Any) -> Tensor:
        branches = Branches(**factors) if factors else None
        readout = replace(CORRCLIP, branches=branches)
        return deep.forward_dense(images, readout, guide=guide).map

    main, both = dense(), dense(spatial=1.0, semantic=0.5)
    spatial, semantic = dense(spatial=1.0, semantic=0), dense(spatial=0, semantic=0.5)
    torch.testing.assert_close(both, spatial + semantic - main, rtol=0, atol=1e-12)
    assert not torch.allclose(spatial, main) and not torch.allclose(semantic, main)


def test_gradients_are_the_same_when_blocks_are_run_again(deep, guide):
    found = []
    for checkpoint in (False, True):
        deep.grad_checkpointing = checkpoint
        deep.zero_grad()
        deep.forward_dense(picture(deep), READOUT, guide=guide).map.square().sum().backward()
        found.append([p.grad.clone() for p in deep.blocks.parameters()])
    deep.grad_checkpointing = False
    assert all(grad.abs().sum() > 0 for grad in found[0])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_autocast_stays_near_full_precision(guide):
    torch.manual_seed(0)
    tower = build_image_tower(tiny_arch(layers=5)).eval()
    half = Guide(guide.tokens.float(), guide.regions)
    with torch.no_grad():
        exact = tower.forward_dense(picture(tower), CORRCLIP, guide=half).map
        with torch.autocast("cpu", torch.bfloat16):
            near = tower.forward_dense(picture(tower), CORRCLIP, guide=half).map
    assert near.dtype == torch.bfloat16
    assert F.cosine_similarity(near.float(), exact, dim=1).min() > 0.99


def test_eva_has_branches(guide):
    """Its copies have no rotary position, as its CLS: one that sees everything is CLS."""
    torch.manual_seed(0)
    eva = build_image_tower(tiny_eva_arch(depth=4)).double().eval()
    images = picture(eva)
    one = torch.zeros(2, 4, 4, dtype=torch.int64)
    with torch.no_grad():
        embedded, rope = eva.embed(images), eva.rope(images)
        beside = Beside.of(Branches(spatial=0), eva.depth, embedded, one, (4, 4))
        x, _, beside = run_beside(eva.blocks, embedded, beside, rope=rope)
        torch.testing.assert_close(beside.copies.tokens, x[:, :1], rtol=0, atol=1e-12)
        together = eva.forward_dense(images, CORRCLIP, guide=guide).map
        alone = eva.forward_dense(images[:1], CORRCLIP, guide=single(guide, 0)).map
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("depth", "first", "last"), [(12, 5, 9), (24, 10, 21), (32, 2, 29), (8, 2, 5), (4, 1, 1)]
)
def test_the_range_of_the_spatial_branch(depth, first, last):
    assert Branches().range_in(depth) == tuple(range(first, last + 1))


def test_blocks_are_named_from_either_end():
    assert Branches(blocks=(-2, 0)).range_in(6) == (0, 4)
    assert Branches(blocks=3).range_in(6) == (3,)
    assert Branches(spatial=0).range_in(2) == ()
    assert Readout("affinity", affinity=dict(), branches=dict(semantic=0, blocks=[1])).branches == (
        Branches(semantic=0.0, blocks=(1,))
    )
