"""The teachers give the published features, at the published positions, from the official files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmclipdis.clip.weights.vfm import VFMS
from mmclipdis.models.vfm import TimmVFM
from mmclipdis.shapes.vfm import load_vfm as load_shapes_vfm
from mmclipdis.shapes.vfm import patch_features
from mmclipdis.utils.statistics import HALF, IMAGENET, convert

#: Two blocks of 32 channels in place of 12 of 768; grids, tokens and file layouts stay.
SMALL: dict[str, dict[str, Any]] = {
    "dinov2-B": dict(depth=2, embed_dim=32, num_heads=2),
    "dino-B-8": dict(depth=2, embed_dim=32, num_heads=2),
    "dino-B-16": dict(depth=2, embed_dim=32, num_heads=2),
    "sam-B": dict(depth=2, embed_dim=32, num_heads=2, global_attn_indexes=(1,)),
}


def small(name: str, **options: Any) -> TimmVFM:
    """The named model, small, with weights that leave nothing at its initial zero or one."""
    vfm = TimmVFM(name, SMALL[name], **options)
    generator = torch.Generator().manual_seed(0)
    for parameter in vfm.parameters():
        parameter.normal_(0, 0.3, generator=generator)
    return vfm


def official(vfm: TimmVFM) -> dict[str, Tensor]:
    """The weights of ``vfm`` in the layout of its official file (spec 3)."""
    state = dict(vfm.model.state_dict())
    if vfm.name.startswith("sam"):
        renamed = {re.sub(r"mlp\.fc", "mlp.lin", k): v for k, v in state.items()}
        file = {f"image_encoder.{k}": v for k, v in renamed.items()}
        return {**file, "prompt_encoder.not_a_point_embed.weight": torch.zeros(1, 256)}
    if vfm.name.startswith("dinov2"):
        cls = torch.full_like(state["cls_token"], 0.25)
        state["pos_embed"] = torch.cat([cls, state["pos_embed"]], dim=1)
        state["cls_token"] = state["cls_token"] - cls
        state["register_tokens"] = state.pop("reg_token")
        state["mask_token"] = torch.zeros(1, cls.shape[-1])
    return state


def pretrained(file: Path) -> dict[str, str]:
    return dict(type="Pretrained", checkpoint=str(file))


def naive_features(vfm: TimmVFM, images: Tensor, table: Tensor) -> Tensor:
    """Patch tokens plus ``table`` (D, h, w), through the blocks one by one."""
    model = vfm.model
    patches = model.patch_embed.proj(images) + table
    if vfm.name.startswith("sam"):
        x = patches.permute(0, 2, 3, 1)
        for block in model.blocks:
            x = block(x)
        return model.neck(x.permute(0, 3, 1, 2))
    prefix = [model.cls_token]
    if model.no_embed_class:
        prefix.append(model.reg_token)
    else:
        prefix = [model.cls_token + model.pos_embed[:, :1]]
    x = torch.cat([*(p.expand(len(images), -1, -1) for p in prefix), patches.flatten(2).mT], dim=1)
    for block in model.blocks:
        x = block(x)
    x = F.layer_norm(x, x.shape[-1:], model.norm.weight, model.norm.bias, eps=1e-6)
    return x[:, -patches[0, 0].numel() :].mT.unflatten(2, patches.shape[-2:])


def naive_table(vfm: TimmVFM, grid: tuple[int, int]) -> Tensor:
    """Position table (D, h, w) by the rule of the official code of each model (spec 3)."""
    table = vfm.model.pos_embed
    if vfm.name.startswith("sam"):
        planes = table.permute(0, 3, 1, 2)
        return F.interpolate(planes, size=grid, mode="bicubic", align_corners=False)[0]
    tokens = table if vfm.model.no_embed_class else table[:, 1:]
    native = round(tokens.shape[1] ** 0.5)
    planes = tokens.mT.unflatten(2, (native, native))
    if vfm.name.startswith("dinov2"):
        return F.interpolate(planes, size=grid, mode="bicubic", antialias=True)[0]
    scale = tuple((side + 0.1) / native for side in grid)
    return F.interpolate(planes, scale_factor=scale, mode="bicubic")[0]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("grid", [(6, 9), (15, 15)])
def test_features_are_those_of_the_naive_model_with_the_official_positions(
    name: str, grid: tuple[int, int]
) -> None:
    vfm = small(name)
    torch.manual_seed(1)
    images = torch.randn(2, 3, grid[0] * vfm.patch_size[0], grid[1] * vfm.patch_size[1])
    with torch.no_grad():
        expected = naive_features(vfm, images, naive_table(vfm, grid))
    features = vfm(images)
    assert features.shape == (2, vfm.num_features, *grid)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["dino-B-16", "sam-B"])
def test_the_rule_of_timm_gives_other_features(name: str) -> None:
    images = torch.randn(1, 3, 96, 144)
    own, timms = small(name), small(name, positions="antialias")
    assert (own(images) - timms(images)).abs().max() > 1e-2


def test_dinov2_is_timms_own_model_at_any_size() -> None:
    vfm = small("dinov2-B")
    assert VFMS["dinov2-B"].positions == "antialias"
    timms = MODELS.build(
        dict(type="TimmVFM", model="dinov2-B", model_kwargs=SMALL["dinov2-B"])
    ).model
    timms.load_state_dict(vfm.model.state_dict())
    timms.dynamic_img_size, timms.patch_embed.flatten = True, False
    timms.patch_embed.output_fmt = type(timms.patch_embed.output_fmt).NHWC
    images = torch.randn(1, 3, 6 * 14, 9 * 14)
    with torch.no_grad():
        (expected,) = timms.forward_intermediates(
            images, indices=1, norm=True, intermediates_only=True
        )
    torch.testing.assert_close(vfm(images), expected, rtol=0, atol=1e-6)


def test_g20_dinov2_with_registers_at_490_px() -> None:
    vfm = small("dinov2-B")
    tokens = []
    vfm.model.blocks[-1].register_forward_hook(lambda *args: tokens.append(args[2].shape[1]))
    assert vfm(torch.zeros(1, 3, 490, 490)).shape == (1, 32, 35, 35)
    assert tokens == [1230]
    assert vfm.model.num_prefix_tokens == 5


def test_g20_sam_at_560_px() -> None:
    assert small("sam-B")(torch.zeros(1, 3, 560, 560)).shape == (1, 256, 35, 35)


@pytest.mark.parametrize("name", VFMS)
def test_the_table_says_what_timm_builds(name: str) -> None:
    with torch.device("meta"):
        vfm = TimmVFM(name, dict(depth=1))
    entry = VFMS[name]
    assert vfm.patch_size == (entry.patch_size, entry.patch_size)
    assert vfm.num_features == entry.channels
    assert vfm.positions == entry.positions
    assert vfm.statistics == entry.statistics
    if name != "shapes-vfm":  # whose model was made for other weights in timm
        noted = timm.get_pretrained_cfg(entry.timm_name)
        assert (entry.statistics.mean, entry.statistics.std) == (noted.mean, noted.std)
    native = {"dinov2": 37, "dino-B-8": 28, "dino-B-16": 14, "sam": 64, "shapes": 20, "mae": 14}
    native |= {"dinov3": 16, "pe-spatial": 32, "tipsv2": 32, "radio": None}
    side = next(v for k, v in native.items() if name.startswith(k))
    if side is not None:  # RADIO's table is of any size
        assert vfm.model.patch_embed.grid_size == (side, side)


def names_of(block: str, stem: str) -> set[str]:
    """Names with weight and bias, one block each, as the authors' code has them."""
    modules = [*(f"blocks.0.{part}" for part in block.split()), *stem.split()]
    return {f"{module}.{leaf}" for module in modules for leaf in ("weight", "bias")}


def test_the_layouts_of_the_tests_are_the_official_ones() -> None:
    """The parameter names of the three repositories, written out."""
    vit = names_of("norm1 attn.qkv attn.proj norm2 mlp.fc1 mlp.fc2", "patch_embed.proj norm")
    sam = names_of(
        "norm1 attn.qkv attn.proj norm2 mlp.lin1 mlp.lin2", "patch_embed.proj neck.1 neck.3"
    )
    rel_pos = {"blocks.0.attn.rel_pos_h", "blocks.0.attn.rel_pos_w"}
    expected = {
        "dino-B-16": vit | {"cls_token", "pos_embed"},
        "dinov2-B": vit | {"cls_token", "pos_embed", "register_tokens", "mask_token"}
        | {"blocks.0.ls1.gamma", "blocks.0.ls2.gamma"},
        "sam-B": sam | rel_pos | {"pos_embed", "neck.0.weight", "neck.2.weight"},
    }  # fmt: skip
    for name, names in expected.items():
        found = official(small(name))
        stem = "image_encoder." if name == "sam-B" else ""
        found = {k.removeprefix(stem) for k in found if k.startswith(stem)}
        assert {k for k in found if not k.startswith("blocks.1.")} == names
    assert official(small("dinov2-B"))["pos_embed"].shape == (1, 1370, 32)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("layout", ["official", "timm"])
def test_official_files_and_timms_load_into_the_same_model(
    name: str, layout: str, tmp_path: Path
) -> None:
    vfm = small(name)
    weights = official(vfm) if layout == "official" else vfm.model.state_dict()
    torch.save(weights, tmp_path / "vfm.pth")
    loaded = TimmVFM(name, SMALL[name], init_cfg=pretrained(tmp_path / "vfm.pth"))
    loaded.init_weights()
    assert not any(p.requires_grad for p in loaded.parameters())
    images = torch.randn(1, 3, 5 * vfm.patch_size[0], 4 * vfm.patch_size[1])
    torch.testing.assert_close(loaded(images), vfm(images), rtol=0, atol=1e-5)


def test_a_wrapped_file_with_a_classifier_loads(tmp_path: Path) -> None:
    vfm = small("dino-B-16")
    state = {f"module.{k}": v for k, v in vfm.model.state_dict().items()}
    state["module.head.weight"] = torch.zeros(1000, 32)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "vfm.pth")
    loaded = TimmVFM("dino-B-16", SMALL["dino-B-16"], init_cfg=pretrained(tmp_path / "vfm.pth"))
    loaded.init_weights()
    torch.testing.assert_close(loaded.model.norm.weight, vfm.model.norm.weight)


@pytest.mark.parametrize(
    ("name", "of", "message"),
    [
        ("dino-B-8", "dino-B-16", r"patch_embed.proj.weight is \(32, 3, 16, 16\), expected"),
        ("dinov2-B", "sam-B", "does not fit|of another model"),
        ("sam-B", "dino-B-16", "does not fit|of another model"),
        ("dino-B-16", "dinov2-B", "of another model"),
    ],
)
def test_the_file_of_another_model_is_refused(
    name: str, of: str, message: str, tmp_path: Path
) -> None:
    torch.save(official(small(of)), tmp_path / "vfm.pth")
    vfm = TimmVFM(name, SMALL[name], init_cfg=pretrained(tmp_path / "vfm.pth"))
    with pytest.raises(ValueError, match=message) as error:
        vfm.init_weights()
    assert f"the official file of '{name}' is https://" in str(error.value)
    assert "\n" not in str(error.value)


def test_positions_of_another_image_size_are_refused(tmp_path: Path) -> None:
    torch.save(small("dino-B-16").model.state_dict(), tmp_path / "vfm.pth")
    kwargs = dict(SMALL["dino-B-16"], img_size=96)
    vfm = TimmVFM("dino-B-16", kwargs, init_cfg=pretrained(tmp_path / "vfm.pth"))
    with pytest.raises(ValueError, match=r"pos_embed is \(1, 197, 32\), expected \(1, 37, 32\)"):
        vfm.init_weights()


def test_missing_weights_are_named(tmp_path: Path) -> None:
    state = official(small("dino-B-16"))
    del state["norm.weight"]
    torch.save(state, tmp_path / "vfm.pth")
    vfm = TimmVFM("dino-B-16", SMALL["dino-B-16"], init_cfg=pretrained(tmp_path / "vfm.pth"))
    with pytest.raises(ValueError, match="missing: norm.weight"):
        vfm.init_weights()
    vfm = TimmVFM("dino-B-16", SMALL["dino-B-16"], init_cfg=pretrained(tmp_path / "none.pth"))
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*none.pth.*https://"):
        vfm.init_weights()


def test_a_teacher_is_frozen_and_stays_in_eval_mode() -> None:
    vfm = small("dino-B-16")
    owner = nn.ModuleList([vfm]).train()
    assert owner.training
    assert not any(module.training for module in vfm.modules())
    assert not any(p.requires_grad for p in vfm.parameters())
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    assert not vfm(images).requires_grad


def test_half_precision_is_close_and_returned_as_float32() -> None:
    torch.manual_seed(0)
    full = TimmVFM("dino-B-16", SMALL["dino-B-16"])
    half = TimmVFM("dino-B-16", SMALL["dino-B-16"], precision="bfloat16")
    half.load_state_dict(full.state_dict())
    images = torch.randn(1, 3, 64, 96)
    assert half.model.norm.weight.dtype == torch.bfloat16
    features = half(images)
    assert features.dtype == torch.float32
    similarity = F.cosine_similarity(features, full(images), dim=1)
    assert similarity.min() > 0.99


def test_remainders_of_an_image_are_cut_off() -> None:
    vfm = small("dinov2-B")
    images = torch.randn(1, 3, 50, 43)
    torch.testing.assert_close(vfm(images), vfm(images[..., :42, :42]))
    with pytest.raises(ValueError, match="13 x 50 px is smaller than one patch of 14 x 14 px"):
        vfm(torch.zeros(1, 3, 13, 50))


def test_any_timm_model_serves() -> None:
    """Small ViTs with and without CLS, one with rotary positions, a network without patches."""
    vit = TimmVFM(
        "vit_tiny_patch16_224",
        dict(img_size=80, patch_size=8, embed_dim=32, depth=2, num_heads=2),
    )
    assert vit.patch_size == (8, 8)
    assert vit(torch.randn(1, 3, 40, 80)).shape == (1, 32, 5, 10)
    options = dict(num_classes=0, class_token=False, global_pool="", dynamic_img_size=True)
    kwargs = dict(img_size=80, patch_size=8, embed_dim=32, depth=2, num_heads=2, **options)
    bare = TimmVFM("vit_tiny_patch16_224", kwargs)
    images = torch.randn(1, 3, 40, 64)
    expected = timm.create_model("vit_tiny_patch16_224", **kwargs).eval()
    expected.load_state_dict(bare.model.state_dict())
    with torch.no_grad():
        tokens = expected.forward_features(convert(images, IMAGENET, HALF))
    torch.testing.assert_close(bare(images), tokens.mT.unflatten(2, (5, 8)), rtol=0, atol=1e-6)
    nowhere = TimmVFM("vit_tiny_patch16_224", {**kwargs, "pos_embed": "none"})
    assert nowhere(images).shape == (1, 32, 5, 8)
    eva = TimmVFM(
        "eva02_tiny_patch14_224",
        dict(depth=1, embed_dim=48, num_heads=2, dynamic_img_size=True),
    )
    assert eva(torch.randn(1, 3, 28, 42)).shape == (1, 48, 2, 3)
    net = TimmVFM("resnet18")
    assert net.patch_size == (32, 32)
    assert net(torch.randn(1, 3, 64, 96)).shape == (1, 512, 2, 3)
    with pytest.raises(ValueError, match="no table of positions"):
        TimmVFM("resnet18", positions="size")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            dict(model="dinov2_B"),
            r"unknown vision model 'dinov2_B'; known: dinov2-B.*close: dinov2",
        ),
        (dict(model="dino-B-16", positions="cubic"), "unknown position rule 'cubic'"),
        (dict(model="dino-B-16", precision="fp16"), "precision must be one of float32, float16"),
        (dict(model="dino-B-16", model_kwargs=dict(dept=2)), "model_kwargs.*dept"),
        (dict(model="dino-B-16", model_kwargs=dict(pretrained=True)), "init_cfg=dict"),
    ],
)
def test_bad_options_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        TimmVFM(**options)
    assert "\n" not in str(error.value)


def test_the_teacher_of_shape_scenes_ships_with_the_package() -> None:
    vfm = TimmVFM("shapes-vfm", init_cfg=dict(type="Pretrained", checkpoint="shapes"))
    vfm.init_weights()
    images = torch.randn(1, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    expected = patch_features(load_shapes_vfm(), images)
    torch.testing.assert_close(vfm(images), expected, rtol=1e-4, atol=1e-5)
