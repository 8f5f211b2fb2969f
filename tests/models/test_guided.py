"""A backbone that a vision model guides: what it sees, and that checkpoints know nothing of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import load_state_dict

import mmclipdis  # noqa: F401  (registers the modules)
from mmclipdis.clip.towers.affinity import Guide
from mmclipdis.clip.towers.readout import READOUTS, get_readout
from mmclipdis.clip.weights.readout_mark import describe_readout
from tests.faults.endings import raises
from tests.tiny import tiny_arch, tiny_eva_arch, tiny_resnet_arch

VFM: dict[str, Any] = dict(
    type="TimmVFM", model="dino-B-8", model_kwargs=dict(depth=2, embed_dim=24, num_heads=2)
)
ARCHS = {"openai": tiny_arch(layers=2), "eva": tiny_eva_arch(img_size=64, patch_size=16, depth=2)}
MASKED = dict(attention="affinity", affinity=dict(scale=4.0, scope="masks"))


def build(readout: Any = "proxyclip", vfm: Any = VFM, arch: str = "openai", **options: Any) -> Any:
    torch.manual_seed(0)
    config = dict(type="CLIPViT", arch=ARCHS[arch], readout=readout, vfm=vfm, **options)
    return MODELS.build(config).eval()


def photos(*size: int) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.manual_seed(1))


@pytest.fixture(scope="module")
def guided() -> Any:
    return build()


# --- what it computes --------------------------------------------------------------------------


@pytest.mark.parametrize("arch", sorted(ARCHS))
@pytest.mark.parametrize("vfm", [{}, dict(feature="q+k", input_size=(24, 40))], ids=str)
def test_the_map_is_guided_by_what_the_vision_model_sees(arch: str, vfm: dict[str, Any]) -> None:
    backbone, images = build(arch=arch, vfm={**VFM, **vfm}), photos(32, 48)
    (dense,) = backbone(images)
    tokens = backbone.vfm(backbone.vfm.from_clip(images))
    grid = (3, 5) if vfm else (4, 6)
    assert dense.shape[-2:] == tokens.shape[-2:] == grid
    assert backbone.pad_multiple == (16, 16)
    expected = backbone.tower.forward_dense(images, READOUTS["proxyclip"], guide=Guide(tokens)).map
    assert torch.equal(dense, expected)
    assert torch.equal(backbone.dense(images).map, dense)
    single = torch.cat([backbone(image[None])[0] for image in images])
    torch.testing.assert_close(dense, single)


def test_patches_of_both_models_must_fill_a_window() -> None:
    backbone = build(vfm=dict(VFM, model="dinov2-B"))
    assert backbone.pad_multiple == (112, 112)
    raises(r"of CLIP and of 'dinov2-B': .*112 x 112 px", backbone, photos(32, 112))
    assert backbone(photos(112, 112))[0].shape == (2, 32, 8, 8)


def test_masks_reach_the_affinity() -> None:
    backbone, images = build(MASKED), photos(32, 32)
    assert backbone.needs_masks and not build().needs_masks
    raises("scope='masks' needs the masks of the photo.*MaskFolder", backbone, images)
    one = torch.ones(2, 32, 32, dtype=torch.long)
    halves = one.clone()
    halves[:, :, 16:] = 2
    plain = build(dict(attention="affinity", affinity=dict(scale=4.0)))(images)[0]
    same, apart = (backbone(images, masks)[0] for masks in (one, halves))
    # the only mask is the smallest number, which is none: those above the mean and the diagonal
    assert (same - plain).abs().max() > 1e-4 and (same - apart).abs().max() > 1e-4
    halves[:, :16, 16:] = 3
    changed = backbone(images, halves)[0]
    assert not torch.equal(changed, apart)


def test_values_and_what_follows_them_are_the_map() -> None:
    backbone, images = build(normalize=True), photos(32, 48)
    guide = backbone.guide(images)
    found = backbone.mixed_values(backbone.values(images), guide)
    torch.testing.assert_close(found, backbone(images)[0])
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2, 4, 6))


@pytest.mark.parametrize("arch", sorted(ARCHS))
def test_recomputed_gradients_are_the_plain_ones(arch: str) -> None:
    gradients = []
    for recompute in (False, True):
        backbone = build(arch=arch, trainable=("all",), grad_checkpointing=recompute)
        backbone(photos(32, 48))[0].square().mean().backward()
        own = dict(backbone.named_parameters())
        trained = {name for name, p in own.items() if p.requires_grad}
        assert trained == {name for name, p in own.items() if p.grad is not None}
        gradients.append({name: own[name].grad for name in trained})
    assert any("v_proj" in name or "in_proj" in name for name in gradients[0])
    torch.testing.assert_close(*gradients)


# --- training and checkpoints ------------------------------------------------------------------


def test_the_vision_model_is_frozen_and_outside_checkpoints() -> None:
    guided = build(trainable=("all",)).train()
    assert not any(p.requires_grad for p in guided.vfm.parameters())
    assert not guided.vfm.training and guided.tower.training
    state = guided.state_dict()
    assert not any(key.startswith("vfm") for key in state)
    assert set(state) == set(build("vanilla", None).state_dict())


@pytest.mark.parametrize("load", ["torch", "mmengine"])
def test_a_checkpoint_without_it_loads_strictly_and_leaves_it(load: str) -> None:
    guided, other = build(), build()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    before = {k: v.clone() for k, v in guided.vfm.state_dict().items()}
    state = other.state_dict()
    if load == "torch":
        guided.load_state_dict(state, strict=True)
    else:
        load_state_dict(guided, state, strict=True)
    torch.testing.assert_close(dict(guided.vfm.state_dict()), before, rtol=0, atol=0)
    torch.testing.assert_close(guided.tower.state_dict(), other.tower.state_dict())


def test_a_checkpoint_of_another_readout_is_refused(guided: Any) -> None:
    state = build("vanilla", None).state_dict()
    raises("saved with the readout 'vanilla'.*reads out 'proxyclip'", guided.load_state_dict, state)
    changed = build(dict(attention="affinity", affinity=dict(shift=1.2, scale=2.0))).state_dict()
    line = raises("any_readout=True", guided.load_state_dict, changed)
    assert "'affinity': " not in line and "affinity=" in line


def test_copies_share_the_vision_model(guided: Any) -> None:
    for copied in (copy.deepcopy(guided), ExponentialMovingAverage(guided).module):
        own = {p.data_ptr() for p in guided.vfm.parameters()}
        assert {p.data_ptr() for p in copied.vfm.parameters()} == own
        assert copied.tower.stem.weight.data_ptr() != guided.tower.stem.weight.data_ptr()
        images = photos(32, 32)
        assert torch.equal(copied(images)[0], guided(images)[0])


# --- faults ------------------------------------------------------------------------------------


def test_a_vision_model_and_an_affinity_belong_together() -> None:
    raises("nothing to make it of: give the backbone .*vfm=dict", build, "proxyclip", None)
    for readout, name in (("naclip", "'naclip'"), (dict(blocks=2), "dict")):
        raises(f"{name}.* has no affinity that vfm=.*leave vfm out", build, readout)


@pytest.mark.parametrize("name", ["resclip", "scclip"])
def test_a_tower_with_too_few_blocks_is_refused_when_it_is_built(name: str) -> None:
    raises(r"block \d does not exist: the tower has 2 blocks", build, name, None)


def test_a_resnet_refuses_what_its_pool_has_not() -> None:
    arch = tiny_resnet_arch()
    for readout, what in (("naclip", "neighbours"), ("proxyclip", "affinity")):
        config = dict(type="CLIPResNet", arch=arch, readout=readout)
        raises(f"'{readout}' has {what}, which the attention pool", MODELS.build, config)
    layers = dict(attention=("kk", "layers"), layers=(1,))
    raises("has layers, which", MODELS.build, dict(type="CLIPResNet", arch=arch, readout=layers))
    raises(
        "the term gem, which",
        MODELS.build,
        dict(type="CLIPResNet", arch=arch, readout=dict(attention="gem")),
    )
    for name in ("gem", "scclip"):
        config = dict(type="CLIPResNet", arch=arch, readout=name)
        raises(f"'{name}' needs transformer blocks", MODELS.build, config)
    raises(
        "CLIPResNet.*vfm|unexpected keyword.*vfm",
        MODELS.build,
        dict(type="CLIPResNet", arch=arch, vfm=VFM),
    )


def test_a_readout_is_described_as_a_config_gives_it() -> None:
    assert describe_readout(READOUTS["proxyclip"]) == "'proxyclip'"
    readout = build(dict(attention="affinity", affinity=dict(scale=2.0))).readout
    assert get_readout(eval(describe_readout(readout))) == readout
