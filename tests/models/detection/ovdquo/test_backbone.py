"""OV-DQUO's backbone on a ViT: what levels and embeddings are made of, and what is frozen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from torch import Tensor

from mmclipdis.models import OVDQUOViTBackbone
from mmclipdis.models.detection.regions import region_embeddings
from tests.models.detection.fvit.test_backbone import as_map, naive_eva
from tests.tiny import tiny_arch, tiny_eva_arch, tiny_resnet_arch

ARCHS = {
    "eva": tiny_eva_arch(img_size=32, patch_size=8, depth=4),
    "openai": tiny_arch(image_size=32, patch_size=8, width=32, head_width=16, layers=4),
}
TOLERANCE = dict(rtol=0, atol=1e-5)


def build(
    arch: str = "eva", encoder: dict[str, Any] | None = None, **kwargs: Any
) -> OVDQUOViTBackbone:
    """With every parameter random: defaults (biases of zero, norms of one) would hide mistakes."""
    torch.manual_seed(0)
    chosen = dict(type="CLIPViT", arch=ARCHS[arch], readout="maskclip") | (encoder or {})
    options = dict(type="OVDQUOViTBackbone", encoder=chosen, out_indices=(1, 2, 3))
    backbone = MODELS.build(options | kwargs)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return backbone


def photos(height: int = 32, width: int = 32, count: int = 2) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.manual_seed(1))


def doubled(x: Tensor, conv: torch.nn.ConvTranspose2d) -> Tensor:
    """A kernel for each of the four pixels of a location."""
    out = x.new_zeros(len(x), x.shape[1], 2 * x.shape[2], 2 * x.shape[3])
    for row in range(2):
        for column in range(2):
            pixel = torch.einsum("bihw,io->bohw", x, conv.weight[:, :, row, column])
            out[:, :, row::2, column::2] = pixel + conv.bias[:, None, None]
    return out


def largest(x: Tensor) -> Tensor:
    """Each 2 x 2 cells, or what is left of them at the far border."""
    height, width = ((side + 1) // 2 for side in x.shape[-2:])
    out = x.new_zeros(*x.shape[:2], height, width)
    for row in range(height):
        for column in range(width):
            cells = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            out[:, :, row, column] = cells.amax((2, 3))
    return out


@pytest.mark.parametrize("size", [(32, 32), (32, 64), (24, 40), (8, 8)])
@pytest.mark.parametrize("level2", ["readout", "vanilla"])
@pytest.mark.parametrize("training", [True, False])
def test_levels_and_map_are_the_formulas_on_any_grid(size, level2, training):
    backbone = build(level2=level2).train(training)
    images, grid = photos(*size), (size[0] // 8, size[1] // 8)
    with torch.no_grad():
        outputs, modified, joint = naive_eva(backbone, images)
        *levels, maps = backbone(images)
        blocks = [
            as_map(x, grid)
            for x in (*outputs[1:3], modified if level2 == "readout" else outputs[3])
        ]
        wanted = [doubled(blocks[0], backbone.upsample), blocks[1], largest(blocks[2])]
    for level, expected in zip(levels, wanted, strict=True):
        torch.testing.assert_close(level, expected, **TOLERANCE)
    unit = joint / joint.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(maps, (as_map(unit, grid),), **TOLERANCE)


@pytest.mark.parametrize(("height", "width"), [(32, 64), (40, 24), (8, 8)])
@torch.no_grad()
def test_levels_of_small_patches_are_pooled_and_nothing_is_trained(height, width):
    usual, coarse = build(), build(level_strides=(1, 2, 4))
    coarse.load_state_dict(usual.state_dict(), strict=False)
    images = photos(height, width)
    blocks, dense = usual.encode(images, with_map=True)
    *levels, maps = coarse(images)
    wanted = [blocks[0], largest(blocks[1]), largest(largest(blocks[2]))]
    for level, expected in zip(levels, wanted, strict=True):
        torch.testing.assert_close(level, expected, **TOLERANCE)
    torch.testing.assert_close(maps, (dense,), **TOLERANCE)
    assert coarse.strides == (8, 16, 32)
    assert not [name for name, value in coarse.named_parameters() if value.requires_grad]


@pytest.mark.parametrize("strides", [(1, 1, 2), (0.5, 1), (2, 4, 8)])
def test_other_levels_are_refused(strides):
    line = r"OVDQUOViTBackbone.level_strides must be one of \(0.5, 1, 2\), \(1, 2, 4\), got"
    with pytest.raises(ValueError, match=line):
        build(level_strides=strides)


@pytest.mark.parametrize("arch", sorted(ARCHS))
@pytest.mark.parametrize(
    ("kind", "readout"), [("CLIPViT", "maskclip"), ("DeCLIPViT", "declip"), ("SCLIPViT", "sclip")]
)
@torch.no_grad()
def test_every_tower_and_readout_embeds_regions_of_its_own_map(arch, kind, readout):
    encoder = dict(type=kind, readout=readout)
    images, boxes = photos(), torch.tensor([[1.0, 8, 0, 24, 16], [0.0, 0, 0, 32, 32]])
    for normalize in ("before", "after"):
        backbone = build(arch, encoder, normalize=normalize)
        tower = backbone.encoder.tower
        dense = tower.forward_dense(images, backbone.encoder.readout).map
        if normalize == "before":
            dense = dense / dense.norm(dim=1, keepdim=True)
        cells = [dense[1, :, 0:2, 1:3], dense[0]]
        expected = torch.stack([F.normalize(part.mean(dim=(1, 2)), dim=0) for part in cells])
        maps = backbone(images)[-1]
        for embed in (backbone.query_embeddings, backbone.score_embeddings):
            torch.testing.assert_close(embed(maps, boxes), expected, **TOLERANCE)


def test_golden_region_of_cells_of_unit_length():
    arch = tiny_eva_arch(img_size=32, patch_size=16, depth=4)
    golden = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]]])[None]
    found = build(encoder=dict(arch=arch)).query_embeddings(
        (golden,), torch.tensor([[0.0, 0, 0, 32, 32]])
    )
    torch.testing.assert_close(found, torch.tensor([[0.948683, 0.316228]]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("patch", "size", "grid"), [(16, 1024, 64), (14, 896, 64)])
@torch.no_grad()
def test_shapes_are_those_of_the_published_models(patch, size, grid):
    arch = tiny_eva_arch(img_size=patch * 2, patch_size=patch, depth=4)
    backbone = build(encoder=dict(arch=arch)).eval()
    *levels, (dense,) = backbone(torch.randn(1, 3, size, size))
    sides = [2 * grid, grid, grid // 2]
    assert [tuple(level.shape) for level in levels] == [(1, 32, side, side) for side in sides]
    assert backbone.level_widths == (32, 32, 32)
    assert dense.shape == (1, backbone.embed_dim, grid, grid)
    assert backbone.strides == {16: (8, 16, 32), 14: (7, 14, 28)}[patch]
    assert [size / level.shape[-1] for level in levels] == list(backbone.strides)


@torch.no_grad()
def test_a_batch_is_its_images():
    backbone, images = build().eval(), photos(32, 48)
    boxes = torch.tensor([[0.0, 3, 2, 20, 31], [1.0, 0, 0, 48, 9]])
    *levels, maps = backbone(images)
    found = backbone.query_embeddings(maps, boxes)
    for index in range(2):
        *alone, own = backbone(images[index : index + 1])
        for level, expected in zip(levels, alone, strict=True):
            torch.testing.assert_close(level[index : index + 1], expected, **TOLERANCE)
        box = torch.cat([torch.zeros(1, 1), boxes[index : index + 1, 1:]], dim=1)
        single = backbone.query_embeddings(own, box)
        torch.testing.assert_close(found[index : index + 1], single, **TOLERANCE)


@pytest.mark.parametrize("level2", ["readout", "vanilla"])
def test_the_encoder_runs_once_and_normalises_its_map_once(level2, monkeypatch):
    backbone = build(level2=level2)
    ran: list[int] = []
    for index, block in enumerate(backbone.encoder.tower.visual.trunk.blocks):
        block.norm1.register_forward_hook(lambda *_, index=index: ran.append(index))
    maps = backbone(photos())[-1]
    normalised: list[tuple[int, ...]] = []
    normalize = F.normalize
    monkeypatch.setattr(
        F, "normalize", lambda x, **kw: normalised.append(x.shape) or normalize(x, **kw)
    )
    backbone.query_embeddings(maps, torch.tensor([[0.0, 0, 0, 16, 16]]))
    assert ran == [0, 1, 2, 3] and normalised == [(1, backbone.embed_dim)]


def test_the_encoder_stays_as_it_is_and_the_up_sampler_learns():
    backbone = build()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert not backbone.encoder.training  # before anybody calls train()
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=1e-2, weight_decay=0.1)
    backbone.train()
    assert not any(module.training for module in backbone.encoder.modules())
    *levels, maps = backbone(photos().requires_grad_())
    embeddings = backbone.query_embeddings(maps, torch.tensor([[0.0, 0, 0, 16, 16]]))
    assert [x.requires_grad for x in (*levels, *maps, embeddings)] == [True] + 4 * [False]
    OptimWrapper(optimizer).update_params(sum(level.square().mean() for level in levels))
    trained = {name for name, value in backbone.named_parameters() if value.requires_grad}
    assert trained == {"upsample.weight", "upsample.bias"}
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("encoder."), name


@pytest.mark.parametrize("arch", sorted(ARCHS))
def test_bfloat16_stays_close_and_embeds_in_fp32(arch):
    backbone, boxes = build(arch).eval(), torch.tensor([[0.0, 1, 2, 30, 20], [1.0, 8, 8, 16, 32]])
    *full, maps = backbone(photos())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        *half, half_maps = backbone(photos())
        found = backbone.query_embeddings(maps, boxes)
        backbone.train()(photos())[0].float().square().mean().backward()
    assert half[0].dtype == torch.bfloat16 and half_maps[0].dtype == torch.float32
    assert torch.equal(found, backbone.query_embeddings(maps, boxes))
    for got, wanted in zip((*half, *half_maps), (*full, *maps), strict=True):
        assert (got.float() - wanted).norm() < 0.02 * wanted.norm()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in backbone.upsample.parameters())


def test_a_stock_neck_stands_on_the_levels_alone():
    from mmdet.models import ChannelMapper

    backbone = build(dense_map=False).train()
    neck = ChannelMapper([32] * 3, 16, kernel_size=1, num_outs=3, norm_cfg=dict(type="BN"))
    levels = backbone(photos(64, 96))
    for level, expected in zip(levels, build()(photos(64, 96))[:3], strict=True):
        assert torch.equal(level, expected)
    maps = neck(levels)
    assert all(m.is_contiguous() for m in maps)  # mmcv's compiled RoIAlign asks for no strides
    assert [tuple(m.shape[-2:]) for m in maps] == [(16, 24), (8, 12), (4, 6)]
    sum(m.square().mean() for m in maps).backward()
    trained = [p for p in (*backbone.parameters(), *neck.parameters()) if p.requires_grad]
    assert all(p.grad is not None for p in trained)


@torch.no_grad()
def test_boxes_without_area_or_outside_are_zeros():
    backbone = build()
    maps = backbone(photos())[-1]
    boxes = torch.tensor(
        [[0.0, 9, 9, 9, 20], [0.0, 9, 9, 9, 9], [0.0, 64, 64, 80, 80], [0.0, 20, 20, 99, 99]]
    )
    found = backbone.query_embeddings(maps, boxes)
    assert found.norm(dim=1).tolist() == pytest.approx([0, 0, 0, 1], abs=1e-6)
    assert backbone.query_embeddings(maps, boxes[:0]).shape == (0, backbone.embed_dim)
    assert torch.equal(found, region_embeddings(maps[0], boxes, 8, "after"))


@pytest.mark.parametrize("size", [(36, 32), (32, 36), (4, 32), (0, 32)])
def test_sides_that_are_no_multiple_of_the_patch_name_the_remedy(size):
    with pytest.raises(ValueError, match=r"patch of 8 px; set pad_size_divisor"):
        build()(torch.zeros(1, 3, *size))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(level2="last"), "level2 must be one of readout, vanilla, got 'last'"),
        (dict(normalize=True), "normalize must be one of before, after, got True"),
        (dict(out_indices=(1, 2, 4)), "has 4 blocks, there is no 4"),
        (dict(out_indices=(0, 1, 2, 3)), "name 3 blocks in ascending order"),
        (dict(out_indices=(0, 1, 2)), r"end with it \(OV-DQUO: \(5, 7, 11\) .* level2='vanilla'"),
        (dict(encoder=dict(trainable=("all",))), "encoder must not set trainable: .* remove them"),
        (dict(encoder=dict(type="CLIPResNet", arch=tiny_resnet_arch(), readout="v")), "CLIPResNet"),
    ],
)
def test_a_wrong_option_is_one_clear_error(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
