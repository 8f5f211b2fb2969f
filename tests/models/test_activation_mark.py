"""Image and text encoders carry GELU or QuickGELU with their weights, however they are loaded."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.runner import load_checkpoint, save_checkpoint
from mmengine.runner.checkpoint import get_state_dict

from mmclipdis.models import CLIPViT, OpenCLIPTextEncoder
from tests.tiny import tiny_arch

KINDS = pytest.mark.parametrize("kind", [CLIPViT, OpenCLIPTextEncoder])
GELU = tiny_arch() | {"quick_gelu": False}


class Model(torch.nn.Module):
    def __init__(self, kind, arch):
        super().__init__()
        self.encoder = kind(arch=arch)


@KINDS
def test_the_other_activation_is_refused_by_every_way_of_loading(tmp_path, kind):
    path = str(tmp_path / "run.pth")
    state = get_state_dict(Model(kind, tiny_arch()))
    save_checkpoint({"state_dict": state, "meta": {}}, path)
    load_checkpoint(Model(kind, tiny_arch()), path, strict=True)
    Model(kind, tiny_arch()).load_state_dict(state)
    copy.deepcopy(Model(kind, tiny_arch())).load_state_dict(state)
    message = (
        "the checkpoint of encoder was trained with QuickGELU, but the given arch is built with "
        "GELU.*; set quick_gelu=True in the arch"
    )
    with pytest.raises(ValueError, match=message):
        load_checkpoint(Model(kind, GELU), path)
    with pytest.raises(ValueError, match=message):
        Model(kind, GELU).load_state_dict(state)
    other = kind(arch=GELU, init_cfg=dict(type="Pretrained", checkpoint=path))
    with pytest.raises(ValueError, match=r"run.pth' was trained with QuickGELU"):
        other.init_weights()


@KINDS
def test_gelu_is_a_mark_too_and_weights_without_a_mark_are_not_checked(kind):
    state = kind(arch=GELU).state_dict()
    assert not bool(state["quick_gelu"])
    with pytest.raises(ValueError, match="was trained with GELU, but"):
        kind(arch=tiny_arch()).load_state_dict(state)
    del state["quick_gelu"]
    kind(arch=tiny_arch()).load_state_dict(state, strict=True)


def test_any_readout_is_not_any_activation():
    state = CLIPViT(tiny_arch(), "csa").state_dict()
    CLIPViT(tiny_arch(), "qq", any_readout=True).load_state_dict(state)
    with pytest.raises(ValueError, match="was trained with QuickGELU"):
        CLIPViT(GELU, "qq", any_readout=True).load_state_dict(state)


@pytest.mark.parametrize(("trained", "built"), [("", "-quickgelu"), ("-quickgelu", "")])
def test_the_arch_to_choose_is_named(trained, built):
    with torch.device("meta"):
        one, other = CLIPViT(f"ViT-B-32{trained}"), CLIPViT(f"ViT-B-32{built}")
    mark = {"quick_gelu": one.state_dict()["quick_gelu"]}
    with pytest.raises(ValueError, match=f"use arch='ViT-B-32{trained}'"):
        other.load_state_dict(mark, strict=False)
