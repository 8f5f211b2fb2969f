"""CLIPViT as a citizen of the mm world."""

from __future__ import annotations

import open_clip
import pytest
import torch
from mmengine.registry import MODELS

import mmclipdis  # noqa: F401  (registers the modules)
from mmclipdis.clip.towers.attention import run_block
from mmclipdis.clip.towers.readout import READOUTS
from tests.clip.readouts import UNGUIDED_READOUTS, fitted
from tests.tiny import tiny_arch, tiny_eva_arch, tiny_resnet_arch

PRESETS = {
    "CLIPViT": ("vanilla", "legacy"),
    "MaskCLIPViT": ("maskclip", "size"),
    "SCLIPViT": ("sclip", "legacy"),
    "ClearCLIPViT": ("clearclip", "legacy"),
    "DeCLIPViT": ("declip", "size"),
    "CLIPSurgeryViT": ("clip_surgery", "bilinear"),
    "GEMViT": ("gem", "antialias"),
}


ARCHS = {
    "openai": tiny_arch(layers=6),
    "eva": tiny_eva_arch(img_size=64, patch_size=16, depth=6),
}


def build(kind="CLIPViT", arch="openai", **kwargs):
    return MODELS.build(dict(type=kind, arch=ARCHS[arch], **kwargs))


@pytest.mark.parametrize("kind", sorted(PRESETS))
def test_presets_are_named_readouts(kind):
    backbone = build(kind)
    readout, positions = PRESETS[kind]
    assert backbone.readout == READOUTS[readout]
    assert backbone.tower.positions == positions
    (dense,) = backbone(torch.randn(2, 3, 48, 80))
    assert dense.shape == (2, 32, 3, 5)


@pytest.mark.parametrize("kind", sorted(PRESETS))
def test_presets_have_an_eva_tower_too(kind):
    backbone = build(kind, "eva").eval()
    readout, positions = PRESETS[kind]
    assert backbone.readout == READOUTS[readout]
    # the tower's own rule where the method has none
    assert backbone.tower.positions == ("size" if positions == "legacy" else positions)
    assert (backbone.embed_dim, backbone.width, backbone.num_blocks) == (8, 32, 6)
    images = torch.randn(2, 3, 48, 80)
    (dense,) = backbone(images)
    assert dense.shape == (2, 8, 3, 5)
    expected = backbone.tower.forward_dense(images, READOUTS[readout]).map
    if kind == "DeCLIPViT":
        expected = torch.nn.functional.normalize(expected, dim=1)
    torch.testing.assert_close(dense, expected)


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


@pytest.mark.parametrize(
    "backbone",
    [
        *(dict(type=kind, arch=arch) for kind in sorted(PRESETS) for arch in ARCHS.values()),
        dict(type="CLIPResNet", arch=tiny_resnet_arch()),
    ],
    ids=lambda backbone: backbone["type"],
)
def test_maps_lie_in_memory_like_those_of_convolutions(backbone):
    """Compiled ops of mmcv, and convolutions behind, take the layout that they are given."""
    out_indices = (2, "map") if backbone["type"] == "CLIPResNet" else (3, "map", -1)
    for maps in (
        MODELS.build(dict(backbone, out_indices=out_indices))(torch.randn(2, 3, 64, 64)),
        MODELS.build(dict(backbone, out_indices=out_indices[:1]))(torch.randn(2, 3, 64, 64)),
    ):
        assert all(one.is_contiguous() for one in maps)


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


@pytest.mark.parametrize("arch", sorted(ARCHS))
def test_frozen_by_default_and_trainable_by_rule(arch):
    assert not any(p.requires_grad for p in build(arch=arch).parameters())
    assert all(p.requires_grad for p in build(arch=arch, trainable=("all",)).parameters())
    both = build(arch=arch, trainable=("q", "v"))
    assert sum(p.requires_grad for p in both.parameters()) == 12
    value_only = build(arch=arch, readout="catseg", trainable=("q", "v"))
    assert sum(p.requires_grad for p in value_only.parameters()) == 11


@pytest.mark.parametrize("arch", sorted(ARCHS))
def test_blocks_are_trained_and_nothing_outside_them(arch):
    def trained(rule):
        backbone = build(arch=arch, trainable=rule)
        return {name for name, p in backbone.named_parameters() if p.requires_grad}

    assert trained(("blocks",)) == trained(("blocks", 6))
    inside = {f"blocks.{i}." for i in range(6)}
    assert all(any(part in name for part in inside) for name in trained(("blocks",)))
    assert len(trained(("blocks",))) == 6 * len(list(build(arch=arch).tower.blocks[0].parameters()))
    assert all("blocks.4." in name or "blocks.5." in name for name in trained(("blocks", 2)))
    assert trained(("blocks", 2)) <= trained(("blocks",))
    assert trained(("blocks", 0)) == set()  # nothing, where the released code unlocks everything


@pytest.mark.parametrize("trainable", [("all",), ("q", "k", "v"), ("k",), ("blocks",)])
@pytest.mark.parametrize("out_indices", [("map",), (-1, "map"), (1, "map"), (1, 3), (5,)])
@pytest.mark.parametrize("kind", sorted(set(PRESETS) - {"GEMViT"}))
@pytest.mark.parametrize("arch", sorted(ARCHS))
def test_exactly_what_is_read_is_trained(arch, kind, out_indices, trainable):
    check_what_is_trained(arch, trainable, type=kind, out_indices=out_indices)


RCS = dict(attention=("kk", "layers"), neighbours=2.0)
CALIBRATED = dict(mid=0, summed=(1, 2), k=3)


@pytest.mark.parametrize("trainable", [("all",), ("q", "k", "v")])
@pytest.mark.parametrize(
    "readout",
    [
        *(dict(blocks=2, attention="gem"), dict(CALIBRATED, deep=1), dict(CALIBRATED, deep=5)),
        *(dict(RCS, layers=layers) for layers in [(0, 1), (1, 5), (-1,)]),
    ],
    ids=str,
)
@pytest.mark.parametrize("arch", sorted(ARCHS))
def test_exactly_what_several_blocks_are_read_for_is_trained(arch, readout, trainable):
    check_what_is_trained(arch, trainable, type="CLIPViT", readout=readout)


def check_what_is_trained(arch, trainable, **config):
    """A trainable parameter without gradient stops DDP; a frozen one with gradient is lost."""
    backbone = MODELS.build(dict(config, arch=ARCHS[arch], trainable=trainable))
    endings = tuple(f"{part}_proj{dot}weight" for part in trainable for dot in "_.")
    wanted = {
        n
        for n, _ in backbone.named_parameters()
        if trainable == ("all",)
        or (trainable == ("blocks",) and "blocks." in n)
        or n.endswith(endings)
    }
    got = {n for n, p in backbone.named_parameters() if p.requires_grad}
    backbone.requires_grad_(True)
    sum(out.square().sum() for out in backbone(torch.randn(2, 3, 64, 64))).backward()
    read = {n for n, p in backbone.named_parameters() if p.grad is not None}
    assert got == wanted & read


@pytest.mark.parametrize("arch", sorted(ARCHS))
@pytest.mark.parametrize("readout", UNGUIDED_READOUTS)
def test_checkpointed_values_and_gradients_equal_plain_ones(readout, arch, monkeypatch):
    images, results, recomputed = torch.randn(2, 3, 64, 48), [], []
    options = dict(readout=fitted(readout), arch=arch, trainable=("all",))
    plain, recomputing = build(**options), build(**options, grad_checkpointing=True)
    recomputing.load_state_dict(plain.state_dict())
    original = torch.utils.checkpoint.checkpoint

    def spy(function, *args, **kwargs):
        recomputed.append(args[0] if function is run_block else "the last block")
        return original(function, *args, **kwargs)

    monkeypatch.setattr(torch.utils.checkpoint, "checkpoint", spy)
    for backbone in (plain, recomputing):
        asked = dict(intermediates=(1, -1), context=("q",), with_cls=True)
        features = backbone.dense(images, **asked)
        outputs = (features.map, features.cls, features.context["q"], *features.intermediates)
        # squares of differing weight, so that every output has a gradient of its own
        sum((i + 1) * out.square().mean() for i, out in enumerate(outputs)).backward()
        gradients = {n: p.grad for n, p in backbone.named_parameters() if p.grad is not None}
        results.append((outputs, gradients))
    torch.testing.assert_close(*results)
    assert recomputed == [*recomputing.tower.blocks[:-1], "the last block"]


@pytest.mark.parametrize("arch", sorted(ARCHS))
def test_checkpointed_block_outputs_have_the_same_gradients(arch):
    images, gradients = torch.randn(1, 3, 64, 64), []
    plain = build(arch=arch, out_indices=(1, 3), trainable=("blocks",))
    recomputing = build(arch=arch, out_indices=(1, 3), trainable=("blocks",))
    recomputing.load_state_dict(plain.state_dict())
    recomputing.tower.grad_checkpointing = True
    for backbone in (plain, recomputing):
        sum(out.square().mean() for out in backbone(images)).backward()
        gradients.append({n: p.grad for n, p in backbone.named_parameters() if p.grad is not None})
    assert gradients[0]
    torch.testing.assert_close(*gradients)


# (arch, readout): trained tensors, those of two dimensions and more, parameters (declip spec 2.3)
DECLIP_TRAINED = {
    ("EVA02-B-16", "qq"): (241, 80, 79_806_208),
    ("EVA02-B-16", "vanilla"): (252, None, None),
    ("EVA02-L-14-336", "qq"): (493, 164, 292_999_448),
    ("EVA02-L-14-336", "vanilla"): (504, None, None),
}
LAST_BLOCK_OF_QQ = [
    *("norm1.weight", "norm1.bias"),
    *("attn.q_proj.weight", "attn.q_proj.bias", "attn.v_proj.weight", "attn.v_proj.bias"),
    *("attn.k_proj.weight", "attn.norm.weight", "attn.norm.bias"),
    *("attn.proj.weight", "attn.proj.bias"),
]


@pytest.mark.parametrize(("arch", "readout"), sorted(DECLIP_TRAINED))
def test_golden_counts_of_what_declip_trains(arch, readout):
    with torch.device("meta"):
        backbone = MODELS.build(
            dict(type="CLIPViT", arch=arch, readout=readout, trainable=("blocks",))
        )
    visual = {"EVA02-B-16": 86_263_040, "EVA02-L-14-336": 304_432_832}[arch]
    assert sum(p.numel() for p in backbone.parameters()) == visual
    trained = [p for p in backbone.parameters() if p.requires_grad]
    tensors, decayed, size = DECLIP_TRAINED[arch, readout]
    assert len(trained) == tensors
    if decayed is not None:
        assert sum(p.ndim >= 2 for p in trained) == decayed
        assert sum(p.numel() for p in trained) == size


@pytest.mark.parametrize(
    ("readout", "frozen"),
    [
        ("qq", {"attn.k_proj.weight"}),
        ("kk", {"attn.q_proj.weight", "attn.q_proj.bias"}),
        ("vv", {"attn.q_proj.weight", "attn.q_proj.bias", "attn.k_proj.weight"}),
        ("csa", set()),
        ("all", set()),
    ],
)
def test_what_declip_trains_of_the_last_block(readout, frozen):
    backbone = build(arch="eva", readout=readout, trainable=("blocks",))
    last = backbone.tower.blocks[-1]
    got = {name for name, p in last.named_parameters() if p.requires_grad}
    assert got == set(LAST_BLOCK_OF_QQ) - frozen


@pytest.mark.parametrize("arch", ["EVA02-B-16", "EVA02-L-14-336"])
def test_catseg_tunes_q_and_v_matrices_of_every_eva_block(arch):
    with torch.device("meta"):
        backbone = MODELS.build(
            dict(type="DeCLIPViT", arch=arch, trainable=("q", "v"), out_indices=(3, 7, "map"))
        )
    names = [n for n, p in backbone.named_parameters() if p.requires_grad]
    assert names == [
        f"tower.visual.trunk.blocks.{i}.attn.{part}_proj.weight"
        for i in range(backbone.num_blocks)
        for part in "qv"
    ]


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
        (dict(trainable=("blocks", 7)), "the tower has 6 blocks"),
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


@pytest.mark.parametrize("arch", sorted(ARCHS))
@pytest.mark.parametrize("kind", ["CLIPViT", "ClearCLIPViT"])
def test_runs_under_autocast(kind, arch):
    backbone = build(kind, arch).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (half,) = backbone(images)
    (full,) = backbone(images)
    assert (half.float() - full).abs().max() < 0.1 * full.abs().max()
