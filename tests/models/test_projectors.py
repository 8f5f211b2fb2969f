"""DCLIP's projectors: sizes, the mode of their batch norm, and files of them."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict
from safetensors.torch import save_file
from torch import nn

from mmclipdis.models.projectors import Projectors, load_projectors

ARCH = "ViT-B-16-quickgelu"


@pytest.mark.parametrize(
    ("width", "text", "image", "total"),
    [(512, 295_680, 131_072, 426_752), (1024, 984_576, 262_144, 1_246_720)],
)
def test_parameter_counts_are_the_published_ones(width, text, image, total):
    projectors = Projectors(width)
    counts = [sum(p.numel() for p in m.parameters()) for m in (projectors.text, projectors.image)]
    assert counts == [text, image]
    assert sum(p.numel() for p in projectors.parameters()) == total


def test_widths_can_be_chosen():
    projectors = Projectors(12, hidden_dim=5, out_dim=3)
    tokens, text = projectors(torch.randn(2, 7, 12), torch.randn(4, 12))
    assert tokens.shape == (2, 7, 3)
    assert text.shape == (4, 3)
    assert sum(p.numel() for p in projectors.parameters()) == 12 * 5 + 5 * 2 + 5 * 3 + 12 * 3
    with pytest.raises(ValueError, match="out_dim must be at least 1, got 0"):
        Projectors(12, out_dim=0)


def test_text_is_linear_norm_relu_linear():
    torch.manual_seed(0)
    projectors = Projectors(8).eval()
    torch.nn.init.normal_(projectors.text[1].weight)
    torch.nn.init.normal_(projectors.text[1].bias)
    rows = torch.randn(5, 8)
    hidden = rows @ projectors.text[0].weight.T / (1 + 1e-5) ** 0.5
    hidden = (hidden * projectors.text[1].weight + projectors.text[1].bias).clamp(min=0)
    expected = hidden @ projectors.text[3].weight.T
    torch.testing.assert_close(projectors.text(rows), expected)
    assert not torch.allclose(projectors.text(rows * 2), expected)


@pytest.mark.parametrize(("text_layers", "image_layers"), [(1, 1), (1, 2), (2, 2), (3, 1)])
def test_layers_can_be_chosen_and_a_file_tells_them(tmp_path, text_layers, image_layers):
    torch.manual_seed(0)
    hidden = None if text_layers == image_layers == 1 else 5
    layers = dict(text_layers=text_layers, image_layers=image_layers)
    saved = Projectors(12, hidden, 3, **layers).eval()
    for side, count in ((saved.text, text_layers), (saved.image, image_layers)):
        linear = [m for m in side.modules() if isinstance(m, nn.Linear)]
        norms = [m for m in side.modules() if isinstance(m, nn.BatchNorm1d)]
        assert (len(linear), len(norms)) == (count, count - 1)
        assert all(layer.bias is None for layer in linear)
        for norm in norms:
            torch.nn.init.normal_(norm.weight)
            torch.nn.init.normal_(norm.bias)
        rows = expected = torch.randn(2, 4, 12)
        for number, layer in enumerate(linear):
            expected = expected @ layer.weight.T
            if number < len(norms):
                scaled = expected / (1 + 1e-5) ** 0.5
                expected = (scaled * norms[number].weight + norms[number].bias).clamp(min=0)
        torch.testing.assert_close(side(rows), expected)
    torch.save({f"projectors.{k}": v for k, v in saved.state_dict().items()}, tmp_path / "p.pth")
    loaded = load_projectors(tmp_path / "p.pth", in_dim=12)
    assert (loaded.text_layers, loaded.image_layers, loaded.out_dim) == (*layers.values(), 3)
    assert loaded.hidden_dim == (hidden or 9)
    for name, value in saved.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    assert not loaded.fresh


@pytest.mark.parametrize("load", [nn.Module.load_state_dict, load_state_dict])
def test_weights_of_other_layers_are_refused(load):
    """Also where loading is not strict, as mmengine's is."""
    for saved, own in (((3, 1), (2, 1)), ((2, 2), (2, 1)), ((1, 1), (2, 1)), ((2, 1), (2, 2))):
        state = {
            f"projectors.{k}": v
            for k, v in Projectors(12, text_layers=saved[0], image_layers=saved[1])
            .state_dict()
            .items()
        }
        model = nn.ModuleDict(
            {"projectors": Projectors(12, text_layers=own[0], image_layers=own[1])}
        )
        message = (
            f"the checkpoint of projectors has text_layers={saved[0]}, image_layers={saved[1]}, "
            f"the model {own[0]}, {own[1]}: set projectors=dict(text_layers={saved[0]}, "
            f"image_layers={saved[1]})"
        )
        with pytest.raises(ValueError, match=re.escape(message)):
            load(model, state, strict=False)
        assert model["projectors"].fresh


def test_layers_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="Projectors.text_layers must be at least 1, got 0"):
        Projectors(12, text_layers=0)
    with pytest.raises(ValueError, match="hidden_dim=5 is of no layer.*leave it out"):
        Projectors(12, hidden_dim=5, text_layers=1)


@pytest.mark.parametrize("norm_eval", [True, False])
def test_norms_of_all_layers_stay_in_eval_mode_unless_asked(norm_eval):
    projectors = Projectors(8, norm_eval=norm_eval, text_layers=3, image_layers=2).train()
    norms = [m for m in projectors.modules() if isinstance(m, nn.BatchNorm1d)]
    assert len(norms) == 3 and all(norm.training is not norm_eval for norm in norms)


@pytest.mark.parametrize("norm_eval", [True, False])
def test_statistics_of_the_norm_move_only_when_asked_to(norm_eval):
    projectors = Projectors(8, norm_eval=norm_eval)  # in training mode, as every new module
    assert projectors.training
    assert projectors.text[1].training is not norm_eval
    rows = torch.randn(6, 8)
    projectors.text(rows)
    norm = projectors.text[1]
    stayed = torch.equal(norm.running_mean, torch.zeros(6)) and torch.equal(
        norm.running_var, torch.ones(6)
    )
    assert stayed is norm_eval
    assert norm.weight.requires_grad and norm.bias.requires_grad
    # with the statistics of the batch, what all rows have in common is lost
    common = torch.allclose(projectors.text(rows), projectors.text(rows + 1), atol=1e-4)
    assert common is not norm_eval


@pytest.mark.parametrize("form", ["bare.pth", "run.pth", "bare.safetensors"])
def test_a_file_tells_the_sizes(tmp_path, form):
    torch.manual_seed(1)
    saved = Projectors(12, hidden_dim=5, out_dim=3, arch=ARCH)
    state, path = saved.state_dict(), tmp_path / form
    if form == "run.pth":
        state = {f"projectors.{k}": v for k, v in state.items()} | {"other": torch.ones(1)}
        torch.save({"state_dict": state, "meta": {"epoch": 3}}, path)
    elif form == "bare.pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    loaded = load_projectors(path, in_dim=12, arch=ARCH)
    assert (loaded.in_dim, loaded.hidden_dim, loaded.out_dim, loaded.arch) == (12, 5, 3, ARCH)
    for name, value in saved.named_parameters():
        assert torch.equal(value, loaded.get_parameter(name))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert load_projectors(path).in_dim == 12


def test_those_of_another_clip_are_refused_by_every_way_of_loading(tmp_path):
    path = tmp_path / "projectors.pth"
    state = Projectors(12, arch="RN101-quickgelu").state_dict()
    torch.save(state, path)
    message = "was trained on 'RN101-quickgelu', but the model uses 'ViT-B-16-quickgelu'"
    with pytest.raises(ValueError, match=f"projectors.pth' {message}.*any_arch=True"):
        load_projectors(path, 12, ARCH)
    with pytest.raises(ValueError, match=f"the checkpoint of Projectors {message}"):
        Projectors(12, arch=ARCH).load_state_dict(state)
    with pytest.raises(ValueError, match=message):
        copy.deepcopy(Projectors(12, arch=ARCH)).load_state_dict(state)
    assert load_projectors(path, 12, ARCH, any_arch=True).arch == "RN101-quickgelu"
    Projectors(12, arch=ARCH, any_arch=True).load_state_dict(state)
    Projectors(12).load_state_dict(state)


@pytest.mark.parametrize("load", [nn.Module.load_state_dict, load_state_dict])
def test_weights_of_other_widths_are_refused(load):
    """Also where loading is not strict, as mmengine's is."""
    state = {f"projectors.{k}": v for k, v in Projectors(12, 5, 3).state_dict().items()}
    for widths, shown in (((12, 5, 4), "12, 5, 4"), ((12, 6), "12, 6, 256"), ((12,), "12, 9, 256")):
        model = nn.ModuleDict({"projectors": Projectors(*widths)})
        message = (
            "the checkpoint of projectors has in_dim=12, hidden_dim=5, out_dim=3, the model "
            f"{shown}: set projectors=dict(hidden_dim=5, out_dim=3)"
        )
        with pytest.raises(ValueError, match=re.escape(message)):
            load(model, dict(state), strict=False)
        assert model["projectors"].fresh
    other = nn.ModuleDict({"projectors": Projectors(16, 5, 3)})
    with pytest.raises(ValueError, match="the model 16, 5, 3: it belongs to another CLIP"):
        load(other, dict(state), strict=False)
    state["projectors.image.weight"] = torch.ones(7, 12)
    with pytest.raises(ValueError, match="contradict each other .*: it is damaged"):
        load(nn.ModuleDict({"projectors": Projectors(12, 5, 3)}), state, strict=False)


def test_weights_are_fresh_until_all_are_loaded():
    state = Projectors(12).state_dict()
    for name in dict(Projectors(12).named_parameters()):
        projectors = Projectors(12)
        part = {key: value for key, value in state.items() if key != name}
        load_state_dict(projectors, part, strict=False)
        assert projectors.fresh, name
        load_state_dict(projectors, state, strict=False)
        assert not projectors.fresh


def test_without_a_mark_every_clip_will_do(tmp_path):
    state = Projectors(12).state_dict()
    assert "arch" not in state
    torch.save(state, tmp_path / "projectors.pth")
    assert load_projectors(tmp_path / "projectors.pth", 12, ARCH).arch == ARCH
    Projectors(12, arch=ARCH).load_state_dict(state)


def test_files_say_the_weights_of_their_clip(tmp_path):
    one, other = nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2).requires_grad_(False)
    saved, path = Projectors(12, arch=ARCH), tmp_path / "projectors.pth"
    saved.belong_to(one)
    torch.save(saved.state_dict(), path)
    load_projectors(path, 12, ARCH).belong_to(one)
    with pytest.raises(ValueError, match="trained on a CLIP with other weights than those in use"):
        load_projectors(path).belong_to(other)
    load_projectors(path, any_arch=True).belong_to(other)
    load_projectors(path).belong_to(other.requires_grad_())  # it is being trained
    again = load_projectors(path).state_dict()
    assert torch.equal(again["clip"], saved.state_dict()["clip"])
    again["clip"] = torch.tensor([255, 255], dtype=torch.uint8)
    with pytest.raises(ValueError, match="holds an entry 'clip' that is no fingerprint"):
        Projectors(12, arch=ARCH).load_state_dict(again)


def test_an_arch_may_be_a_config(tmp_path):
    arch = dict(embed_dim=12, vision_cfg=dict(layers=(2, 2)), text_cfg={})
    state = Projectors(12, arch=arch).state_dict()
    Projectors(12, arch=dict(reversed(arch.items()))).load_state_dict(state)
    with pytest.raises(ValueError, match=r"the CLIP of the arch \{.*'ViT-B-16-quickgelu'"):
        Projectors(12, arch=ARCH).load_state_dict(state)
    state["arch"] = torch.tensor([255, 255], dtype=torch.uint8)
    with pytest.raises(ValueError, match="holds an entry 'arch' that names no CLIP"):
        Projectors(12, arch=ARCH).load_state_dict(state)


def test_what_is_no_file_of_projectors_is_one_clear_error(tmp_path):
    path = tmp_path / "x.pth"
    with pytest.raises(
        FileNotFoundError, match=r"no projectors at .*tools/train.py.*configs/dclip"
    ):
        load_projectors(path)
    for content in ({"state_dict": {"backbone.weight": torch.ones(1)}}, torch.ones(3), {}):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"x.pth' holds no projectors"):
            load_projectors(path)
    torch.save(Projectors(12).state_dict(), path)
    with pytest.raises(ValueError, match="for a CLIP of 12 channels, the one in use has 16"):
        load_projectors(path, in_dim=16)
    state = Projectors(12).state_dict()
    del state["text.1.running_var"]
    torch.save(state, path)
    with pytest.raises(ValueError, match="are damaged: .*running_var"):
        load_projectors(path)
