"""F-ViT's backbone: what the levels are made of, what is frozen, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from torch import Tensor

import mmclipdis  # noqa: F401  (registers the modules)
from mmclipdis.models import FViTBackbone
from tests.tiny import tiny_arch, tiny_eva_arch, tiny_resnet_arch

ARCHS = {
    "eva": tiny_eva_arch(img_size=32, patch_size=8, depth=4),
    "openai": tiny_arch(image_size=32, patch_size=8, width=32, head_width=16, layers=4),
}
TOLERANCE = dict(rtol=0, atol=1e-5)


def build(
    arch: str = "eva", encoder: dict[str, Any] | None = None, seed: int = 0, **kwargs: Any
) -> FViTBackbone:
    """With every parameter random: defaults (biases of zero, norms of one) would hide mistakes."""
    torch.manual_seed(seed)
    options = dict(out_indices=(0, 1, 2, 3), norm_cfg=dict(type="BN"), **kwargs)
    chosen = dict(type="CLIPViT", arch=ARCHS[arch], readout="maskclip") | (encoder or {})
    backbone = MODELS.build(dict(type="FViTBackbone", encoder=chosen, **options))
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return backbone


def photos(height: int = 32, width: int = 32) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.manual_seed(1))


def as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    return tokens[:, 1:].transpose(1, 2).unflatten(2, grid)


def naive_eva(backbone: FViTBackbone, images: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
    """Outputs of timm's own blocks, and of the last one read by MaskCLIP (spec 1.2), with CLS."""
    tower = backbone.encoder.tower
    trunk, x = tower.visual.trunk, tower.embed(images)
    outputs = []
    for block in trunk.blocks:
        x = block(before := x, rope=tower.rope(images))
        outputs.append(x)
    last = trunk.blocks[-1]
    value = last.attn.v_proj(last.norm1(before))
    x = before + last.attn.proj(last.attn.norm(value))
    x = x + last.mlp(last.norm2(x))
    return outputs, x, trunk.head(trunk.norm(x))


def unpooled(blocks: list[Tensor], backbone: FViTBackbone) -> list[Tensor]:
    """The up-samplers of spec 1.2 as a kernel for each of the four pixels of a location."""

    def doubled(x: Tensor, conv: torch.nn.ConvTranspose2d) -> Tensor:
        out = x.new_zeros(len(x), x.shape[1], 2 * x.shape[2], 2 * x.shape[3])
        for dy in range(2):
            for dx in range(2):
                pixel = torch.einsum("bihw,io->bohw", x, conv.weight[:, :, dy, dx])
                out[:, :, dy::2, dx::2] = pixel + conv.bias[:, None, None]
        return out

    first, norm, _, second = backbone.interpolate1
    x = doubled(blocks[0], first).movedim(1, -1)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    x = F.gelu((x - norm.running_mean) * scale + norm.bias).movedim(-1, 1)
    rows = blocks[3].unflatten(2, (-1, 2)).amax(3)
    return [
        doubled(x, second),
        doubled(blocks[1], backbone.interpolate2[0]),
        blocks[2],
        rows.unflatten(3, (-1, 2)).amax(4),
    ]


@pytest.mark.parametrize("size", [(32, 32), (48, 48), (32, 64)])
@pytest.mark.parametrize("level3", ["readout", "vanilla"])
@torch.no_grad()
def test_levels_and_map_are_the_formulas_also_where_not_square(size, level3):
    backbone = build(level3=level3).eval()
    images, grid = photos(*size), (size[0] // 8, size[1] // 8)
    outputs, modified, joint = naive_eva(backbone, images)
    tokens = [*outputs[:3], modified if level3 == "readout" else outputs[3]]
    expected = unpooled([as_map(x, grid) for x in tokens], backbone)
    *levels, dense = backbone(images)
    for level, wanted in zip(levels, expected, strict=True):
        torch.testing.assert_close(level, wanted, **TOLERANCE)
    unit = joint / joint.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(dense, as_map(unit, grid), **TOLERANCE)


@pytest.mark.parametrize("arch", sorted(ARCHS))
@pytest.mark.parametrize(
    ("kind", "readout"),
    [
        ("CLIPViT", "maskclip"),
        ("DeCLIPViT", "declip"),
        ("SCLIPViT", "sclip"),
        ("CLIPSurgeryViT", dict(blocks=2)),
    ],
)
@torch.no_grad()
def test_every_tower_and_readout_gives_its_own_map_and_last_level(arch, kind, readout):
    encoder = dict(type=kind, readout=readout)
    backbone = build(arch, encoder).eval()
    tower, images = backbone.encoder.tower, photos()
    *levels, dense = backbone(images)
    features = tower.forward_dense(images, backbone.encoder.readout, with_tokens=True)
    torch.testing.assert_close(levels[3], F.max_pool2d(features.tokens, 2), **TOLERANCE)
    torch.testing.assert_close(dense, F.normalize(features.map, dim=1), **TOLERANCE)
    raw = build(arch, encoder, normalize="after").eval()
    assert (backbone.normalize, raw.normalize) == ("before", "after")
    torch.testing.assert_close(raw(images)[-1], features.map, **TOLERANCE)
    vanilla = build(arch, encoder, level3="vanilla").eval()(images)
    torch.testing.assert_close(vanilla[:3], tuple(levels[:3]), **TOLERANCE)
    torch.testing.assert_close(vanilla[4], dense, **TOLERANCE)
    assert not torch.allclose(vanilla[3], levels[3], atol=1e-2)


@pytest.mark.parametrize("level3", ["readout", "vanilla"])
def test_the_encoder_runs_once_and_training_has_no_map(level3):
    backbone = build(level3=level3)
    ran: list[int] = []
    joint: list[bool] = []
    trunk = backbone.encoder.tower.visual.trunk
    trunk.head.register_forward_hook(lambda *_: joint.append(True))
    for index, block in enumerate(trunk.blocks):
        block.norm1.register_forward_hook(lambda *_, index=index: ran.append(index))
    for mode in (True, False):
        ran.clear()
        joint.clear()
        *levels, dense = backbone.train(mode)(photos())
        assert ran == [0, 1, 2, 3]
        assert not (joint and mode and level3 == "vanilla")  # nor is the other path computed
        assert (dense is None) == mode and len(levels) == 4
    norms = dense.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), **TOLERANCE)


def test_the_encoder_stays_as_it_is_and_the_up_samplers_learn():
    backbone = build()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert not backbone.encoder.training  # before anybody calls train()
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=1e-2, weight_decay=0.1)
    backbone.train()
    assert not any(module.training for module in backbone.encoder.modules())
    assert backbone.interpolate1.training
    loss = sum(level.square().mean() for level in backbone(photos())[:4])
    OptimWrapper(optimizer).update_params(loss)
    assert not any(p.requires_grad or p.grad is not None for p in backbone.encoder.parameters())
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("encoder."), name


def test_gradients_reach_every_up_sampler_and_nothing_else():
    backbone, images = build().train(), photos().requires_grad_()
    *levels, _ = backbone(images)
    assert [level.requires_grad for level in levels] == [True, True, False, False]
    (levels[0].sum() + levels[1].sum()).backward()
    assert images.grad is None
    for name, parameter in backbone.named_parameters():
        assert (parameter.grad is None) == name.startswith("encoder."), name


@pytest.mark.parametrize(("patch", "size", "grid"), [(16, 640, 40), (14, 896, 64)])
@torch.no_grad()
def test_shapes_are_those_of_the_published_models(patch, size, grid):
    arch = tiny_eva_arch(img_size=patch * 2, patch_size=patch, depth=4)
    backbone = build(encoder=dict(arch=arch)).eval()
    *levels, dense = backbone(torch.randn(1, 3, size, size))
    assert [tuple(level.shape) for level in levels] == [
        (1, 32, round(grid * f), round(grid * f)) for f in (4, 2, 1, 0.5)
    ]
    assert dense.shape == (1, backbone.embed_dim, grid, grid)
    assert backbone.strides == {16: (4, 8, 16, 32), 14: (3.5, 7, 14, 28)}[patch]
    assert [size / level.shape[-1] for level in levels] == list(backbone.strides)


@pytest.mark.parametrize(
    ("arch", "out_indices", "width", "dim", "published"),
    [
        ("EVA02-B-16", (3, 5, 7, 11), 768, 512, 20_989_972),
        ("EVA02-L-14-336", (6, 10, 14, 23), 1024, 768, 30_954_772),
    ],
)
def test_trained_parameters_are_as_many_as_published(arch, out_indices, width, dim, published):
    from mmdet.models import FPN, RPNHead

    batch_norm = dict(type="SyncBN")
    with torch.device("meta"):
        encoder = dict(type="CLIPViT", arch=arch, readout="maskclip")
        parts = [
            FViTBackbone(encoder, out_indices),
            FPN([width] * 4, 256, num_outs=5, norm_cfg=batch_norm),
            RPNHead(num_classes=1, in_channels=256, num_convs=2, anchor_generator=dict(
                type="mmdet.AnchorGenerator", ratios=[0.5, 1, 2], scales=[8],
                strides=[4, 8, 16, 32, 64]), bbox_coder=dict(type="mmdet.DeltaXYWHBBoxCoder"),
                loss_cls=dict(type="mmdet.CrossEntropyLoss", use_sigmoid=True),
                loss_bbox=dict(type="mmdet.L1Loss")),
        ]  # fmt: skip
    assert parts[0].width == width and parts[0].embed_dim == dim
    count = sum(p.numel() for part in parts for p in part.parameters() if p.requires_grad)
    box_convs = 4 * (256 * 256 * 9 + 2 * 256)
    box_fcs = (12544 + 1) * dim + 3 * (dim + 1) * dim + (dim + 1) * 4
    assert count + box_convs + box_fcs + 1 == published  # 1: the temperature


@torch.no_grad()
def test_positions_are_the_parameter_at_the_native_grid_and_bicubic_elsewhere():
    tower = build().encoder.tower
    table, conv = tower.position_table, tower.visual.trunk.patch_embed.proj
    for size in (32, 48):
        images = photos(size, size)
        patches = F.conv2d(images, conv.weight, conv.bias, stride=8).flatten(2).transpose(1, 2)
        added = tower.embed(images)[0, 1:] - patches[0]
        expected = table[1:]
        if size == 48:
            native = table[1:].T.reshape(1, -1, 4, 4)
            wider = F.interpolate(native, size=(6, 6), mode="bicubic", align_corners=False)
            expected = wider[0].flatten(1).T
        torch.testing.assert_close(added, expected, **TOLERANCE)
        cls = tower.embed(images)[:, 0]
        assert torch.equal(cls, (tower.prefix_tokens[0] + table[0]).expand_as(cls))


@pytest.mark.parametrize("arch", sorted(ARCHS))
def test_bfloat16_stays_close_trains_and_leaves_the_map_in_fp32(arch):
    backbone = build(arch).eval()
    full = backbone(photos())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = backbone(photos())
    assert half[4].dtype == torch.float32
    for got, wanted in zip(half, full, strict=True):
        assert (got.float() - wanted).norm() < 0.02 * wanted.norm()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        *levels, _ = backbone.train()(photos())
        loss = sum(level.float().square().mean() for level in levels)
    loss.backward()
    gradients = [p.grad for p in backbone.parameters() if p.requires_grad]
    assert len(gradients) == 8 and all(g.isfinite().all() and g.any() for g in gradients)


def test_a_stock_fpn_stands_on_the_levels():
    from mmdet.models import FPN

    backbone, neck = build().train(), FPN([32] * 4, 16, num_outs=5, norm_cfg=dict(type="BN"))
    maps = neck(backbone(photos(64, 96))[:4])
    assert all(m.is_contiguous() for m in maps)  # mmcv's compiled RoIAlign asks for no strides
    assert [tuple(m.shape[-2:]) for m in maps] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    sum(m.square().mean() for m in maps).backward()
    trained = [p for p in (*backbone.parameters(), *neck.parameters()) if p.requires_grad]
    assert all(p.grad is not None for p in trained)


@torch.no_grad()
def test_stock_necks_can_have_the_levels_alone():
    images = photos()
    for level3 in ("readout", "vanilla"):
        expected = build(level3=level3).eval()(images)[:4]
        got = build(level3=level3, dense_map=False).eval()(images)
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


@torch.no_grad()
def test_an_odd_grid_loses_no_row():
    backbone = build().eval()
    images = photos(24, 40)  # 3 x 5 patches
    *levels, dense = backbone(images)
    assert [tuple(m.shape[-2:]) for m in levels] == [(12, 20), (6, 10), (3, 5), (2, 3)]
    assert dense.shape[-2:] == (3, 5)
    tokens = backbone.encoder.tower.forward_dense(
        images, backbone.encoder.readout, with_tokens=True
    ).tokens
    torch.testing.assert_close(levels[3][..., 1, 2], tokens[..., 2, 4], **TOLERANCE)


@pytest.mark.parametrize("size", [(36, 32), (32, 36), (4, 32), (0, 32)])
def test_sides_that_are_no_multiple_of_the_patch_name_the_remedy(size):
    with pytest.raises(ValueError, match=r"patch of 8 px; set pad_size_divisor"):
        build()(torch.zeros(1, 3, *size))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(level3="last"), "level3 must be one of readout, vanilla, got 'last'"),
        (dict(normalize=True), "normalize must be one of before, after, got True"),
        (dict(out_indices=(0, 1, 2, 4)), "has 4 blocks, there is no 4"),
        (dict(out_indices=(0, 1, 3)), "name 4 blocks in ascending order"),
        (dict(out_indices=(1, 0, 2, 3)), "name 4 blocks in ascending order"),
    ],
)
def test_a_wrong_option_is_one_clear_error(options, message):
    encoder = dict(type="CLIPViT", arch=ARCHS["eva"])
    with pytest.raises(ValueError, match=message):
        FViTBackbone(encoder, **{"out_indices": (0, 1, 2, 3), **options})


def test_the_readout_is_of_the_last_block():
    encoder = dict(type="CLIPViT", arch=tiny_eva_arch(depth=5))
    with pytest.raises(ValueError, match=r"reads the last block, 4; .* level3='vanilla'"):
        FViTBackbone(encoder, (0, 1, 2, 3))
    backbone = FViTBackbone(encoder, (0, 1, 2, 3), level3="vanilla", norm_cfg=dict(type="BN"))
    assert backbone.out_indices == (0, 1, 2, 3)
    assert FViTBackbone(encoder, (0, 1, -2, -1)).out_indices == (0, 1, 3, 4)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (dict(trainable=("all",)), "encoder must not set trainable"),
        (dict(out_indices=(1,), normalize=True), "must not set out_indices, normalize"),
        (dict(type="CLIPResNet", arch=tiny_resnet_arch(), readout="v"), "is a CLIPResNet"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(encoder, message):
    with pytest.raises(ValueError, match=message):
        build(encoder=encoder)


def test_weights_come_through_the_encoders_init_cfg(tmp_path):
    source = build(seed=3)
    visual = {f"visual.{k}": v for k, v in source.encoder.tower.visual.state_dict().items()}
    torch.save(visual, tmp_path / "clip.pt")
    init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "clip.pt"))
    backbone = build(encoder=dict(init_cfg=init_cfg))
    backbone.init_weights()
    for name, value in source.encoder.tower.visual.state_dict().items():
        assert torch.equal(backbone.encoder.tower.visual.state_dict()[name], value), name
    assert not any(p.requires_grad for p in backbone.encoder.parameters())


def test_up_samplers_have_the_names_of_the_released_checkpoints():
    own = [name for name, _ in build().named_parameters() if not name.startswith("encoder.")]
    leaves = [f"interpolate1.{i}.{leaf}" for i in (0, 1, 3) for leaf in ("weight", "bias")]
    assert own == [*leaves, "interpolate2.0.weight", "interpolate2.0.bias"]
