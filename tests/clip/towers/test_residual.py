"""ClearCLIP's residual weight, the residual alone, and several last blocks, by formulas."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from mmclipdis.clip.towers.block_reader import read_last_block
from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.towers.image_tower import ImageTower
from mmclipdis.clip.towers.readout import READOUTS, Readout, get_readout
from mmclipdis.clip.towers.resnet import check_pool_readout
from mmclipdis.clip.towers.stages import check_stage_readout
from mmclipdis.clip.weights.readout_mark import decode_readout, describe_readout, readout_json
from mmclipdis.clip.weights.trainable import freeze_unread
from tests.tiny import tiny_arch, tiny_eva_arch

TOLERANCE: dict[str, Any] = dict(rtol=0, atol=1e-10)
ARCHS = {
    "open_clip": tiny_arch(image_size=32, patch_size=8),
    "EVA": tiny_eva_arch(),
    "timm": dict(
        tiny_eva_arch(),
        vision_cfg=dict(
            image_size=16,
            timm_model_name="vit_base_patch16_siglip_224",
            timm_pool="map",
            timm_proj="none",
            timm_model_kwargs=dict(img_size=16, patch_size=4, embed_dim=32, depth=3, num_heads=2),
        ),
        embed_dim=32,
    ),
}


@pytest.fixture(params=list(ARCHS))
def model(request: pytest.FixtureRequest) -> ImageTower:
    """A tower of three blocks in float64, nothing at its initial zero or one."""
    torch.manual_seed(0)
    tower = build_image_tower(ARCHS[request.param]).double().eval()
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return tower


@pytest.fixture
def images(model: ImageTower) -> Tensor:
    return torch.randn(2, 3, *model.image_size, dtype=torch.float64)


def streams(tower: ImageTower, images: Tensor) -> list[Tensor]:
    """``X``, the input of each block, ``(B, p + N, D)``, by the library's own blocks."""
    found = [tower.embed(images)]
    for block in tower.blocks[:-1]:
        rope = tower.rope(images)
        found.append(block(found[-1]) if rope is None else block(found[-1], rope=rope))
    return found


def read(tower: ImageTower, images: Tensor, **fields: Any) -> Tensor:
    """Tokens under a readout, ``(B, N, D)``."""
    readout = Readout(fields.pop("attention", ("qq",)), **fields)
    with torch.no_grad():
        found = tower.forward_dense(images, readout, with_tokens=True).tokens
    assert found is not None
    return found.flatten(2).mT


@pytest.mark.parametrize("alpha", [-0.5, 0.3, 2.0])
@pytest.mark.parametrize("residual", ["token", "cls"])
def test_the_residual_is_added_with_its_weight(
    model: ImageTower, images: Tensor, residual: str, alpha: float
) -> None:
    if residual == "cls" and not model.prefix:
        with pytest.raises(ValueError, match="needs the CLS token"):
            model.check_readout(Readout(("qq",), residual="cls", residual_weight=alpha))
        return
    before = streams(model, images)[-1]
    added = before[:, model.prefix :] if residual == "token" else before[:, :1]
    expected = read(model, images) + alpha * added
    found = read(model, images, residual=residual, residual_weight=alpha)
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_the_feed_forward_branch_follows_the_weighted_sum(
    model: ImageTower, images: Tensor
) -> None:
    fields: dict[str, Any] = dict(residual="token", residual_weight=0.3)
    summed, block = read(model, images, **fields), model.blocks[-1]
    norm: Any = getattr(block, "ln_2", getattr(block, "norm2", None))
    scale = getattr(block, "ls2", torch.nn.Identity())
    expected = summed + scale(block.mlp(norm(summed)))
    torch.testing.assert_close(read(model, images, **fields, ffn=True), expected, **TOLERANCE)


def test_the_residual_alone_is_the_input_of_the_last_block(
    model: ImageTower, images: Tensor
) -> None:
    expected = streams(model, images)[-1][:, model.prefix :]
    found = read(model, images, attention=(), residual="token")
    torch.testing.assert_close(found, expected, **TOLERANCE)
    features = model.forward_dense(images, READOUTS["residual"]).map
    torch.testing.assert_close(features.flatten(2).mT, model.to_joint(expected), **TOLERANCE)


@pytest.mark.parametrize("ffn", [False, True])
def test_the_last_blocks_are_read_at_the_ordinary_stream_and_summed(
    model: ImageTower, images: Tensor, ffn: bool
) -> None:
    fields: dict[str, Any] = dict(residual="token", residual_weight=0.5, ffn=ffn)
    single = []
    for count in (1, 2, 3):  # the last block of a tower that ends there
        index = model.depth - count
        x, rope = streams(model, images)[index], model.rope(images)
        readout = Readout(("qq",), **fields)
        block = model.blocks[index]
        single.append(read_last_block(block, x, readout, rope, prefix=model.prefix))
    for count in (1, 2, 3):
        found = read(model, images, **fields, last_blocks=count)
        torch.testing.assert_close(found, sum(single[:count]), **TOLERANCE)


def test_weight_one_and_one_block_are_what_they_were_to_the_last_bit(
    model: ImageTower, images: Tensor
) -> None:
    for name in ("vanilla", "maskclip", "clearclip"):
        plain: Any = READOUTS[name]
        again = Readout(
            plain.attention, plain.residual, plain.ffn, residual_weight=1, last_blocks=1
        )
        assert again == plain
        found = [model.forward_dense(images, readout).map for readout in (plain, again)]
        assert torch.equal(*found)
        assert set(json.loads(readout_json(again))) == {"attention", "residual", "ffn", "scale"}


def test_weight_zero_is_no_residual() -> None:
    assert Readout(("qq",), residual="token", residual_weight=0) == READOUTS["clearclip"]


WEIGHED = Readout(("qq",), residual="token", residual_weight=0.25, last_blocks=3)


@pytest.mark.parametrize("readout", [WEIGHED, READOUTS["residual"]])
def test_the_new_fields_are_in_marks_and_messages(readout: Readout) -> None:
    assert decode_readout(readout_json(readout), "x.pt") == readout
    if readout is WEIGHED:
        assert get_readout(eval(describe_readout(readout))) == readout
        assert not {"residual_weight", "last_blocks"} - set(json.loads(readout_json(readout)))


def test_a_residual_alone_leaves_the_attention_frozen() -> None:
    """Weights without a gradient stop DDP."""
    tower = build_image_tower(ARCHS["open_clip"])
    freeze_unread(tower.blocks[-1], Readout((), residual="token", ffn=True))
    left = {name for name, p in tower.blocks[-1].named_parameters() if p.requires_grad}
    assert left and all(name.startswith(("ln_2", "mlp")) for name in left)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            dict(residual_weight=0.5),
            r"residual_weight=0.5 with residual='none', which adds nothing",
        ),
        (dict(residual="token", residual_weight="half"), "residual_weight must be a number, got"),
        (
            dict(residual="token", residual_weight=True),
            "residual_weight must be a number, got True",
        ),
        (dict(residual=True), r"residual must be one of \('token', 'cls', 'none'\), got True"),
        (dict(attention=()), "without any there must be a residual"),
        (
            dict(attention=(), residual="token", residual_weight=0),
            "without any there must be a residual",
        ),
        (dict(last_blocks=0), "last_blocks must be a whole number from 1 on, got 0"),
        (dict(last_blocks=True), "last_blocks must be a whole number from 1 on, got True"),
        (
            dict(attention=("affinity",), affinity={}, last_blocks=2),
            "last_blocks=2 with the term 'affinity'",
        ),
        (
            dict(attention=("layers",), layers=(0,), last_blocks=2),
            "last_blocks=2 with the term 'layers'",
        ),
    ],
)
def test_what_cannot_be_is_one_clear_error(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_readout(dict(dict(attention=("qq",)), **fields))


def test_more_blocks_than_the_tower_has_are_refused(model: ImageTower, images: Tensor) -> None:
    with pytest.raises(ValueError, match="last_blocks=4, but the tower has 3 blocks"):
        model.check_readout(Readout(("qq",), last_blocks=4))


@pytest.mark.parametrize(
    ("readout", "message"),
    [
        (Readout(("qq",), last_blocks=2), "has last_blocks, which the attention pool"),
        (Readout(("qq",), "token", residual_weight=0.5), "has no residual"),
        (READOUTS["residual"], "readout 'residual' needs transformer blocks"),
    ],
)
def test_towers_without_such_blocks_refuse_by_name(readout: Readout, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_pool_readout(readout)
    with pytest.raises(ValueError, match="ends in convolutions and has only 'vanilla'"):
        check_stage_readout(readout)
