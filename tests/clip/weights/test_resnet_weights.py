"""Checkpoints of CLIP's ResNets: each layout loads both towers, each wrong file names its arch."""

from __future__ import annotations

from copy import deepcopy

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from mmclipdis.clip.text.encoder import build_text_tower
from mmclipdis.clip.towers.build import build_image_tower, build_text_transformer
from mmclipdis.clip.towers.resnet import build_resnet_tower
from mmclipdis.clip.weights.loading import (
    load_image_tower,
    load_text_transformer,
    model_config,
    read_clip_checkpoint,
)
from mmclipdis.clip.weights.tower_size import tower_size
from tests.clip.towers.test_resnet import randomised
from tests.clip.weights.test_loading import LAYOUTS, _Archive, contiguous
from tests.tiny import tiny_arch, tiny_eva_arch, tiny_resnet_arch


@pytest.fixture
def arch():
    return tiny_resnet_arch()


@pytest.fixture
def model(arch):
    torch.manual_seed(3)
    model = open_clip.CLIP(**arch).eval()
    randomised(model.visual)
    return model


def assert_same_towers(arch, path, model, tolerance=0.0):
    image, text = build_resnet_tower(arch).eval(), build_text_transformer(arch)
    load_image_tower(image, arch, path)
    load_text_transformer(text, arch, path)
    wanted = model.visual.state_dict()
    for name, value in image.visual.state_dict().items():
        assert value.dtype == wanted[name].dtype
        torch.testing.assert_close(value, wanted[name], rtol=tolerance, atol=tolerance)
    images, tokens = torch.randn(2, 3, 64, 64), torch.tensor([[1, 5, 7, 99] + [0] * 12])
    with torch.no_grad():
        got, expected = text(tokens), model.encode_text(tokens)
        torch.testing.assert_close(got, expected, rtol=0, atol=20 * tolerance + 1e-6)
        if not tolerance:
            torch.testing.assert_close(image.encode_image(images), model.encode_image(images))


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_every_layout_loads_to_the_same_towers(tmp_path, arch, model, layout):
    torch.save(LAYOUTS[layout](contiguous(model.state_dict())), tmp_path / "clip.pt")
    assert_same_towers(
        arch, tmp_path / "clip.pt", model, 1e-3 if layout == "half precision" else 0.0
    )


def test_safetensors_load(tmp_path, arch, model):
    path = tmp_path / "clip.safetensors"
    save_file(contiguous(model.state_dict()), path, metadata={"quick_gelu": "true"})
    assert_same_towers(arch, path, model)


@pytest.mark.parametrize("half", [False, True])
def test_openai_torchscript_archive_loads_and_is_of_quickgelu(tmp_path, arch, model, half):
    path = tmp_path / "RN-tiny.pt"
    archive = torch.jit.trace(
        _Archive(deepcopy(model)), torch.randn(1, 3, 64, 64), check_trace=False
    )
    (archive.half() if half else archive).save(str(path))
    assert read_clip_checkpoint(arch, path).quick_gelu is True
    assert_same_towers(arch, path, model, 1e-3 if half else 0.0)
    with pytest.raises(ValueError, match=r"trained with QuickGELU.*set quick_gelu=True"):
        load_text_transformer(build_text_transformer(arch), arch | {"quick_gelu": False}, path)


def test_old_files_without_batch_counters_load(tmp_path, arch, model):
    state = contiguous(model.state_dict())
    without = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert len(without) < len(state)
    torch.save(without, tmp_path / "old.pt")
    assert_same_towers(arch, tmp_path / "old.pt", model)


def test_counters_of_batches_are_kept(tmp_path, arch, model):
    model.visual.bn1.num_batches_tracked.fill_(7)
    torch.save(contiguous(model.state_dict()), tmp_path / "clip.pt")
    tower = build_resnet_tower(arch)
    load_image_tower(tower, arch, tmp_path / "clip.pt")
    assert tower.visual.bn1.num_batches_tracked == 7


def test_missing_statistics_are_an_error_and_not_random(tmp_path, arch, model):
    state = contiguous(model.state_dict())
    del state["visual.layer2.0.bn3.running_mean"]
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(ValueError, match=r"missing: visual.layer2.0.bn3.running_mean"):
        load_image_tower(build_resnet_tower(arch), arch, tmp_path / "clip.pt")


def test_openai_tag_with_gelu_arch_is_refused_before_any_download():
    with pytest.raises(ValueError, match="use arch='RN101-quickgelu'"):
        read_clip_checkpoint("RN101", "openai")


RESNETS = ["RN50", "RN101", "RN50x4", "RN50x16", "RN50x64"]


def of_size(arch):
    """The state dict of an arch, without values: an element a tensor."""
    with torch.device("meta"):
        model = open_clip.CLIP(**model_config(arch))
    return {
        k: torch.zeros((), dtype=v.dtype).expand(v.shape) for k, v in model.state_dict().items()
    }


@pytest.mark.parametrize("name", RESNETS)
def test_the_size_of_a_file_names_its_arch(name):
    size = tower_size(of_size(name))
    assert size.kind == "ResNet" and size.arch == f"{name}-quickgelu"
    assert str(size).endswith(f"(as {name}-quickgelu)")


def meta_resnet(arch):
    with torch.device("meta"):
        return build_resnet_tower(arch)


@pytest.mark.parametrize(("file", "arch"), [("RN50", "RN101"), ("RN101", "RN50")])
def test_rn50_and_rn101_are_told_apart(tmp_path, file, arch):
    arch += "-quickgelu"
    torch.save(of_size(file), tmp_path / "rn.pt")
    blocks = {"RN50": 16, "RN101": 33}[file]
    message = (
        rf"does not fit the image tower '{arch}': it holds a CLIP ResNet of width 64 with {blocks} "
        rf"blocks and 7 x 7 positions \(as {file}-quickgelu\), but .* "
        rf"choose arch='{file}-quickgelu', or a file of this arch"
    )
    with pytest.raises(ValueError, match=message):
        load_image_tower(meta_resnet(arch), arch, tmp_path / "rn.pt")
    with torch.device("meta"):
        text = build_text_transformer(arch)
    message = f"text tower '{arch}' .*text_projection.* choose arch='{file}-quickgelu', or a file"
    with pytest.raises(ValueError, match=message):
        load_text_transformer(text, arch, tmp_path / "rn.pt")


@pytest.mark.parametrize("vit", [tiny_arch(), tiny_eva_arch()], ids=["openai", "eva"])
def test_a_vit_file_is_refused_by_a_resnet_arch(tmp_path, vit):
    text = {"token_embedding.weight": torch.zeros(2, 2)}
    torch.save(build_image_tower(vit).state_dict() | text, tmp_path / "a.pt")
    arch = tiny_resnet_arch()
    message = r"a.pt' holds an (OpenAI-style|EVA-CLIP) ViT of width .*the given arch has .* ResNet"
    with pytest.raises(ValueError, match=message):
        load_image_tower(build_resnet_tower(arch), arch, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=message):
        load_text_transformer(build_text_transformer(arch), arch, tmp_path / "a.pt")


@pytest.mark.parametrize("arch", ["ViT-B-16-quickgelu", "EVA02-B-16"])
def test_a_resnet_file_is_refused_by_a_vit_arch_although_its_text_tower_would_fit(tmp_path, arch):
    torch.save(of_size("RN101"), tmp_path / "rn.pt")
    with pytest.raises(ValueError, match=r"33 blocks .*choose arch='RN101-quickgelu'") as caught:
        read_clip_checkpoint(arch, tmp_path / "rn.pt")
    assert "LAION" not in str(caught.value)


def test_text_tower_of_a_resnet_arch_has_its_space():
    with torch.device("meta"):
        assert build_text_tower("RN50-quickgelu").embed_dim == 1024
        assert build_text_tower("RN101-quickgelu").embed_dim == 512
