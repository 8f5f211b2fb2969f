"""CLIPViT as a citizen of the mm world."""

from __future__ import annotations

import open_clip
import pytest
import torch
from mmengine.registry import MODELS

import mmclipdis  # noqa: F401  (registers the modules)
from mmclipdis.clip.readout import READOUTS
from tests.tiny import tiny_arch

PRESETS = {
    "CLIPViT": ("vanilla", "legacy"),
    "MaskCLIPViT": ("maskclip", "size"),
    "SCLIPViT": ("sclip", "legacy"),
    "ClearCLIPViT": ("clearclip", "legacy"),
    "DeCLIPViT": ("declip", "size"),
    "CLIPSurgeryViT": ("clip_surgery", "bilinear"),
}


def build(kind="CLIPViT", **kwargs):
    return MODELS.build(dict(type=kind, arch=tiny_arch(layers=6), **kwargs))


@pytest.mark.parametrize("kind", sorted(PRESETS))
def test_presets_are_named_readouts(kind):
    backbone = build(kind)
    readout, positions = PRESETS[kind]
    assert backbone.readout == READOUTS[readout]
    assert backbone.tower.positions == positions
    (dense,) = backbone(torch.randn(2, 3, 48, 80))
    assert dense.shape == (2, 32, 3, 5)


def test_out_indices_give_blocks_and_map_in_order():
    backbone = build(out_indices=(3, "map", 0)).eval()
    images = torch.randn(1, 3, 64, 64)
    deep, dense, shallow = backbone(images)
    assert deep.shape == shallow.shape == (1, 64, 4, 4) and dense.shape == (1, 32, 4, 4)
    reference = backbone.tower.visual.forward_intermediates(images, indices=[0, 3])
    torch.testing.assert_close(shallow, reference["image_intermediates"][0], atol=1e-5, rtol=0)
    torch.testing.assert_close(deep, reference["image_intermediates"][1], atol=1e-5, rtol=0)
    only_blocks = build(out_indices=(1, -1))
    assert [m.shape[1] for m in only_blocks(images)] == [64, 64]


def test_blocks_behind_the_last_one_asked_are_not_run():
    backbone = build(out_indices=(1,))
    ran = []
    for index, block in enumerate(backbone.tower.blocks):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    backbone(torch.randn(1, 3, 64, 64))
    assert ran == [0, 1]


def test_declip_map_has_unit_norm():
    dense = build("DeCLIPViT").dense(torch.randn(1, 3, 64, 64)).map
    torch.testing.assert_close(dense.norm(dim=1), torch.ones(1, 4, 4))


def test_frozen_by_default_and_trainable_by_rule():
    assert not any(p.requires_grad for p in build().parameters())
    assert all(p.requires_grad for p in build(trainable=("all",)).parameters())
    names = [n for n, p in build(trainable=("q", "v")).named_parameters() if p.requires_grad]
    assert len(names) == 12
    value_only = build(readout="catseg", trainable=("q", "v"))
    assert sum(p.requires_grad for p in value_only.parameters()) == 11


@pytest.mark.parametrize("trainable", [("all",), ("q", "k", "v"), ("k",)])
@pytest.mark.parametrize("out_indices", [("map",), (-1, "map"), (1, "map"), (1, 3), (5,)])
@pytest.mark.parametrize("kind", sorted(PRESETS))
def test_exactly_what_is_read_is_trained(kind, out_indices, trainable):
    """A trainable parameter without gradient stops DDP; a frozen one with gradient is lost."""
    backbone = build(kind, trainable=trainable, out_indices=out_indices)
    wanted = {n for n, _ in backbone.named_parameters() if trainable == ("all",)} or {
        n
        for n, _ in backbone.named_parameters()
        if n.endswith(tuple(f"{part}_proj_weight" for part in trainable))
    }
    got = {n for n, p in backbone.named_parameters() if p.requires_grad}
    backbone.requires_grad_(True)
    sum(out.square().sum() for out in backbone(torch.randn(2, 3, 64, 64))).backward()
    read = {n for n, p in backbone.named_parameters() if p.grad is not None}
    assert got == wanted & read


@pytest.mark.parametrize("kind", ["ClearCLIPViT", "CLIPSurgeryViT"])
def test_checkpointed_gradients_equal_plain_ones(kind, monkeypatch):
    images, grads, recomputed = torch.randn(2, 3, 64, 64), [], []
    plain = build(kind, trainable=("all",))
    recomputing = build(kind, trainable=("all",), grad_checkpointing=True)
    recomputing.load_state_dict(plain.state_dict())
    original = torch.utils.checkpoint.checkpoint

    def spy(block, *args, **kwargs):
        recomputed.append(block)
        return original(block, *args, **kwargs)

    monkeypatch.setattr(torch.utils.checkpoint, "checkpoint", spy)
    for backbone in (plain, recomputing):
        backbone(images)[0].square().sum().backward()
        grads.append(backbone.tower.visual.conv1.weight.grad)
    torch.testing.assert_close(*grads)
    assert recomputed == list(recomputing.tower.blocks[:-1])


def test_weights_are_loaded_by_init_weights_and_not_before(tmp_path):
    arch = tiny_arch(layers=6)
    model = open_clip.CLIP(**arch)
    torch.save(model.state_dict(), tmp_path / "clip.pt")
    backbone = build(init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "clip.pt")))
    assert not torch.equal(backbone.tower.visual.conv1.weight, model.visual.conv1.weight)
    backbone.init_weights()
    assert torch.equal(backbone.tower.visual.conv1.weight, model.visual.conv1.weight)
    with torch.no_grad():
        backbone.tower.visual.conv1.weight.zero_()
    backbone.init_weights()  # a second call must not undo training
    assert backbone.tower.visual.conv1.weight.abs().max() == 0


def test_building_needs_no_network_even_for_a_tag():
    backbone = MODELS.build(
        dict(
            type="ClearCLIPViT",
            arch="ViT-B-32-quickgelu",
            init_cfg=dict(type="Pretrained", checkpoint="openai"),
        )
    )
    assert backbone.embed_dim == 512 and backbone.width == 768


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(out_indices=("mpa",)), "'mpa' is neither 'map' nor a block of a tower with 6 blocks"),
        (dict(out_indices=(6,)), "6 is neither 'map' nor a block"),
        (dict(out_indices=()), "out_indices is empty"),
        (dict(readout="clear"), "unknown readout 'clear'"),
        (dict(positions="bicubic"), "unknown position rule 'bicubic'"),
        (dict(trainable=("bias",)), "choose"),
    ],
)
def test_wrong_arguments_are_clear_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


@pytest.mark.parametrize(
    "init_cfg", [dict(type="Kaiming", layer="Conv2d"), dict(type="Pretrained")]
)
def test_wrong_init_cfg_is_a_clear_error(init_cfg):
    with pytest.raises(ValueError, match="CLIPViT.init_cfg"):
        build(init_cfg=init_cfg).init_weights()


def test_runs_under_autocast():
    backbone = build("ClearCLIPViT").eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (half,) = backbone(images)
    (full,) = backbone(images)
    assert (half.float() - full).abs().max() < 0.1 * full.abs().max()
