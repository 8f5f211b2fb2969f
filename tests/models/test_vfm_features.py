"""What a vision model returns beside its map, of pixels as it wants them, at a size of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.clip.weights.vfm import VFMS
from mmclipdis.models.vfm import TimmVFM
from mmclipdis.utils.statistics import CLIP, HALF, IMAGENET, NONE, Statistics

TINY: dict[str, Any] = dict(depth=2, embed_dim=24, num_heads=2)
#: Kinds of attention: fused with bias, with registers, with rotary positions, split, with a bias
#: beside, in SAM's channels-last blocks, and in NaFlexViT.
MODELS: dict[str, dict[str, Any]] = {
    "dino-B-8": TINY,
    "dinov2-B": TINY,
    "dinov3-S": TINY,
    "eva02_tiny_patch14_224": TINY,
    "eva02_base_patch14_224": dict(TINY, qkv_fused=True),
    "sam-B": dict(TINY, global_attn_indexes=(1,)),
    "pe-spatial-B": dict(TINY, ref_feat_shape=(4, 4), img_size=64),
    "beit_base_patch16_224": dict(TINY, img_size=(32, 48)),
    "radio-v3-B": TINY,
}


def tiny(name: str, kwargs: dict[str, Any] | None = None, **options: Any) -> TimmVFM:
    """A small model with weights that leave nothing at its initial zero or one."""
    vfm = TimmVFM(name, MODELS.get(name, TINY) if kwargs is None else kwargs, **options)
    generator = torch.Generator().manual_seed(0)
    for parameter in vfm.parameters():
        parameter.normal_(0, 0.3, generator=generator)
    return vfm


def last_input(vfm: TimmVFM, images: Tensor) -> tuple[Tensor, Tensor]:
    """Input and normed input of the last block as it really runs, ``(B, n, D)`` of the patches."""
    seen: list[Tensor] = []
    block = vfm.model.blocks[-1]
    hooks = [
        block.register_forward_pre_hook(lambda *args: seen.append(args[1][0])),
        block.norm1.register_forward_hook(lambda *args: seen.append(args[2])),
    ]
    feature, vfm.feature = vfm.feature, "map"
    vfm(images)
    vfm.feature = feature
    for hook in hooks:
        hook.remove()
    flat = [x.flatten(1, -2)[:, getattr(vfm.model, "num_prefix_tokens", 0) :] for x in seen]
    return flat[0], flat[1]


@pytest.mark.parametrize("name", MODELS)
def test_q_k_and_v_are_those_of_the_last_block_with_bias(name: str) -> None:
    vfm = tiny(name)
    height, width = vfm.patch_size
    images = torch.randn(2, 3, 2 * height, 3 * width)
    _, normed = last_input(vfm, images)
    attn = vfm.model.blocks[-1].attn
    state = {k: v.double().numpy() for k, v in attn.state_dict().items()}
    rows = normed.double().numpy()
    zero = np.zeros(24)
    if "qkv.weight" in state:
        weights = np.split(state["qkv.weight"], 3)
        beside = [state.get("q_bias", zero), zero, state.get("v_bias", zero)]
        biases = np.split(state["qkv.bias"], 3) if "qkv.bias" in state else beside
    else:
        weights = [state[f"{part}_proj.weight"] for part in "qkv"]
        biases = [state.get(f"{part}_proj.bias", zero) for part in "qkv"]
    parts = {x: rows @ w.T + b for x, w, b in zip("qkv", weights, biases, strict=True)}
    for feature in ("q", "k", "v", "q+k"):
        vfm.feature = feature
        found = vfm(images)
        assert found.shape == (2, 24, 2, 3)
        expected = sum(parts[x] for x in feature.split("+"))
        flat = found.flatten(2).mT.double().numpy()
        np.testing.assert_allclose(flat, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["dinov2-B", "sam-B"])
def test_nothing_of_the_last_block_is_run_for_them(name: str) -> None:
    vfm = tiny(name, feature="q+k")
    assert vfm.num_features == 24  # that of the map of SAM is 256
    ran: list[str] = []
    block = vfm.model.blocks[-1]
    parts = {"block": block, "attention": block.attn, "mlp": block.mlp}
    for part, module in parts.items():
        module.register_forward_hook(lambda *_, part=part: ran.append(part))
    vfm(torch.randn(1, 3, 32, 32))
    assert not ran
    vfm.feature = "map"
    vfm(torch.randn(1, 3, 32, 32))
    assert sorted(ran) == sorted(parts)


def test_q_in_half_precision_is_close_and_returned_as_float32() -> None:
    full = tiny("dino-B-8", feature="q")
    half = TimmVFM("dino-B-8", TINY, precision="bfloat16", feature="q")
    half.load_state_dict(full.state_dict())
    images = torch.randn(1, 3, 32, 48)
    found = half(images)
    assert found.dtype == torch.float32
    assert F.cosine_similarity(found, full(images), dim=1).min() > 0.99
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert full(images).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "statistics"),
    [
        ("dino-B-8", IMAGENET),
        ("vit_base_patch16_siglip_224", HALF),
        ("vit_base_patch14_reg1_tipsv2", NONE),
        ("pe-spatial-B", HALF),
        ("vit_base_patch16_clip_224.openai", CLIP),
    ],
)
def test_a_model_sees_pixels_as_it_wants_them(name: str, statistics: Statistics) -> None:
    """Whatever is zero for ImageNet is another number for it, and CLIP's pixels are no others."""
    vfm = tiny(name)
    assert vfm.statistics == statistics
    seen: list[Tensor] = []
    vfm.model.patch_embed.register_forward_pre_hook(lambda *args: seen.append(args[1][0]))
    side = 2 * vfm.patch_size[0]
    pixels = torch.rand(1, 3, side, side)

    def normalised(by: Statistics) -> Tensor:
        mean, std = (torch.tensor(x)[:, None, None] for x in (by.mean, by.std))
        return (pixels - mean) / std

    vfm(normalised(IMAGENET))
    vfm(vfm.from_clip(normalised(CLIP)))
    for images in seen:
        torch.testing.assert_close(images, normalised(statistics), rtol=1e-5, atol=1e-5)


def test_own_statistics_can_be_named() -> None:
    vfm = tiny("dino-B-8", mean=[0.5, 0.5, 0.5], std=[1, 1, 1])
    assert vfm.statistics == Statistics((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
    plain = tiny("dino-B-8")
    images = torch.randn(1, 3, 16, 16)
    own = images * torch.tensor(IMAGENET.std)[:, None, None]
    own += torch.tensor(IMAGENET.mean)[:, None, None] - 0.5
    torch.testing.assert_close(vfm(images), plain(own))
    assert tiny("dino-B-8", std=(0.5, 0.5, 0.5)).statistics.mean == IMAGENET.mean


def test_patch_size_and_channels_are_those_of_the_map() -> None:
    """FastViT has a wider classifier, Swin merges patches on the way, MobileCLIP's have a stem."""
    models: dict[str, tuple[dict[str, Any], int, int]] = {
        "fastvit_t8": (dict(layers=(1, 1, 1, 1)), 384, 32),
        "swin_tiny_patch4_window7_224": (dict(depths=(1, 1, 1, 1)), 768, 32),
        "vit_base_mci_224": (dict(depth=1), 768, 16),
        "xcit_nano_12_p16_224": (dict(depth=1), 128, 16),
    }
    with torch.device("meta"):
        for name, (kwargs, channels, patch) in models.items():
            vfm = TimmVFM(name, kwargs)
            assert (vfm.num_features, vfm.patch_size) == (channels, (patch, patch))
            side = 224 // patch
            (found,) = vfm.model.forward_intermediates(
                torch.zeros(1, 3, 224, 224), indices=1, norm=True, intermediates_only=True,
                output_fmt="NCHW",
            )  # fmt: skip
            assert found.shape == (1, channels, side, side)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("vit_small_patch8_224.dino", "legacy"),
        ("vit_base_patch16_224.mae", "size"),
        ("samvit_base_patch16", "size"),
        ("vit_base_patch16_224", "antialias"),
        ("vit_base_patch16_clip_224.openai", "antialias"),
    ],
)
def test_timms_names_have_the_rule_of_the_official_code(name: str, rule: str) -> None:
    with torch.device("meta"):
        assert TimmVFM(name, dict(depth=1)).positions == rule


class TestPerceptionEncoder:
    """Its table is resampled bilinearly, and its rotary positions count on (encoders spec 2.4)."""

    def test_at_its_own_size_it_is_timms(self) -> None:
        vfm = tiny("pe-spatial-B")
        kwargs = dict(MODELS["pe-spatial-B"], num_classes=0)
        timms = timm.create_model("vit_pe_spatial_base_patch16_512", **kwargs).eval()
        timms.load_state_dict(vfm.model.state_dict())
        images = torch.randn(1, 3, 64, 64)
        own = (images * torch.tensor(IMAGENET.std)[:, None, None]) * 2
        own += (torch.tensor(IMAGENET.mean)[:, None, None] - 0.5) * 2
        with torch.no_grad():
            (expected,) = timms.forward_intermediates(own, indices=1, norm=True,
                                                      intermediates_only=True)  # fmt: skip
        torch.testing.assert_close(vfm(images), expected, rtol=1e-4, atol=1e-4)

    def test_positions_at_another_size(self) -> None:
        vfm = tiny("pe-spatial-B")
        assert vfm.positions == "bilinear"
        seen: dict[str, Tensor] = {}
        vfm.model.norm_pre.register_forward_pre_hook(
            lambda _, args: seen.__setitem__("tokens", args[0])
        )
        block = vfm.model.blocks[0]
        block.register_forward_pre_hook(
            lambda _, args, kwargs: seen.__setitem__("rope", kwargs["rope"]), with_kwargs=True
        )
        images = torch.zeros(1, 3, 5 * 16, 3 * 16)
        vfm(images)
        table = vfm.model.pos_embed[0, 1:].T.reshape(1, 24, 4, 4)
        expected = F.interpolate(table, size=(5, 3), mode="bilinear")[0].flatten(1).T
        constant = images[..., :16, :16] + 2 * torch.tensor(IMAGENET.mean)[:, None, None] - 1
        patch = vfm.model.patch_embed.proj(constant).flatten()
        torch.testing.assert_close(seen["tokens"][0, 1:] - patch, expected, rtol=1e-4, atol=1e-4)
        # angles: the column first, then the row, both from 1 on, of 12 channels of a head
        sine, cosine = seen["rope"].chunk(2, dim=-1)
        frequencies = 10000 ** -(torch.arange(3) / 3)
        row, column = torch.meshgrid(torch.arange(1, 6.0), torch.arange(1, 4.0), indexing="ij")
        angles = torch.cat(
            [(at.flatten()[:, None] * frequencies).repeat_interleave(2, 1) for at in (column, row)],
            dim=1,
        )
        torch.testing.assert_close(sine, angles.sin(), rtol=0, atol=1e-5)
        torch.testing.assert_close(cosine, angles.cos(), rtol=0, atol=1e-5)


def test_radio_has_the_positions_of_a_square() -> None:
    """Those of the longer side, bilinearly with aligned corners, cut (encoders spec 2.4)."""
    vfm = tiny("radio-v3-B")
    seen: list[Tensor] = []
    vfm.model.norm_pre.register_forward_pre_hook(lambda *args: seen.append(args[1][0]))
    vfm(torch.zeros(1, 3, 3 * 16, 5 * 16))
    table = vfm.model.embeds.pos_embed.reshape(1, 128, 128, 24).permute(0, 3, 1, 2)
    square = F.interpolate(table, size=(5, 5), mode="bilinear", align_corners=True)
    expected = square[0, :, :3].flatten(1).T
    found = seen[0][0, vfm.model.num_prefix_tokens :]  # of an image that is the same everywhere
    assert vfm.model.num_prefix_tokens == 8
    torch.testing.assert_close(found - found[:1], expected - expected[:1], rtol=0, atol=1e-4)


class TestInputSize:
    def test_images_are_squeezed_to_it(self) -> None:
        free, fixed = tiny("sam-B"), tiny("sam-B", input_size=(64, 48))
        assert (free.fixed_grid, fixed.fixed_grid) == (None, (4, 3))
        images = torch.randn(1, 3, 50, 90)
        torch.testing.assert_close(fixed(images), free(squeezed_by_hand(images, (64, 48))))

    def test_images_of_that_size_stay_as_they_are(self) -> None:
        free, fixed = tiny("dino-B-8"), tiny("dino-B-8", input_size=32)
        images = torch.randn(1, 3, 32, 32)
        assert torch.equal(fixed(images), free(images))
        assert tiny("dino-B-8", input_size=32, feature="k")(images).shape == (1, 24, 4, 4)


def squeezed_by_hand(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with half pixels and the edges held, in numpy."""

    def weights(given: int, wanted: int) -> np.ndarray:
        places = np.clip((np.arange(wanted) + 0.5) * given / wanted - 0.5, 0, given - 1)
        low = np.floor(places).astype(int)
        found = np.zeros((wanted, given))
        np.add.at(found, (np.arange(wanted), low), 1 - (places - low))
        np.add.at(found, (np.arange(wanted), np.minimum(low + 1, given - 1)), places - low)
        return found

    rows, columns = (weights(images.shape[i - 2], size[i]) for i in (0, 1))
    return torch.from_numpy(rows @ images.double().numpy() @ columns.T).float()


def test_the_table_has_the_models_of_the_methods() -> None:
    expected = {"dino-B-8", "dino-B-16", "dinov2-B", "sam-B", "mae-B"}
    expected |= {f"dinov3-{size}" for size in ("S", "S+", "B", "L")}
    expected |= {f"{name}-{size}" for name in ("pe-spatial", "tipsv2") for size in "BL"}
    expected |= {f"radio-v3-{size}" for size in "BLH"}
    assert expected <= set(VFMS)
    assert VFMS["mae-B"].positions == "size"
