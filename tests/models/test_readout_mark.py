"""Backbones carry their readout with their weights, through files, runs and init_cfg."""

from __future__ import annotations

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import load_checkpoint, save_checkpoint
from mmengine.runner.checkpoint import get_state_dict
from safetensors.torch import save_file

from mmclipdis.clip.towers.readout import READOUTS, Readout
from mmclipdis.clip.weights.readout_mark import decode_readout, readout_json
from mmclipdis.models import CLIPViT, DeCLIPViT
from tests.ranks import group_of_one
from tests.tiny import tiny_arch

UNSCALED = dict(attention=("qq", "kk"), scale="none")


def backbone(readout, **kwargs):
    return CLIPViT(tiny_arch(), readout, **kwargs)


def from_file(path, readout, **kwargs):
    model = backbone(readout, init_cfg=dict(type="Pretrained", checkpoint=str(path)), **kwargs)
    model.init_weights()
    return model


@pytest.fixture
def run(tmp_path):
    """Checkpoint of a run whose backbone is a DeCLIP tower, and that backbone."""
    torch.manual_seed(1)
    model = torch.nn.Module()
    model.backbone = DeCLIPViT(arch=tiny_arch(), trainable=("q", "v"))
    save_checkpoint({"state_dict": get_state_dict(model), "meta": {}}, str(tmp_path / "run.pth"))
    return tmp_path / "run.pth", model.backbone


def assert_same_weights(one, other):
    fused = "visual.transformer.resblocks.0.attn.out_proj.weight"
    assert torch.equal(one.tower.state_dict()[fused], other.tower.state_dict()[fused])


def test_csa_used_as_qq_is_an_error_that_names_both(run):
    path, trained = run
    with pytest.raises(ValueError, match=r"run.pth' was .*'csa'.*'qq'.*any_readout=True"):
        from_file(path, "qq")
    with pytest.raises(ValueError, match=r"'csa'.*dict\(attention=\('qq', 'kk'\), scale='none'\)"):
        from_file(path, UNSCALED)
    assert_same_weights(from_file(path, "csa"), trained)
    assert_same_weights(from_file(path, "qq", any_readout=True), trained)


def test_loading_a_whole_checkpoint_is_checked_too(run):
    path, trained = run
    for readout in ("csa", "declip"):
        model = torch.nn.Module()
        model.backbone = backbone(readout)
        load_checkpoint(model, str(path), strict=True)
        assert_same_weights(model.backbone, trained)
    model.backbone = backbone("vanilla")
    with pytest.raises(ValueError, match="the checkpoint of backbone was saved with the readout"):
        load_checkpoint(model, str(path))
    model.backbone = backbone("vanilla", any_readout=True)
    load_checkpoint(model, str(path))
    assert_same_weights(model.backbone, trained)


def test_own_state_dict_loads_strictly_under_ddp():
    with group_of_one():
        wrapped = MMDistributedDataParallel(backbone("csa", trainable=("all",)))
        state = wrapped.state_dict()
        assert decode_readout(state["module.readout"], "") == READOUTS["csa"]
        wrapped.load_state_dict(state)
        assert decode_readout(get_state_dict(wrapped)["readout"], "") == READOUTS["csa"]
        other = MMDistributedDataParallel(backbone("qq", trainable=("all",)))
        with pytest.raises(ValueError, match=r"'csa'.*'qq'"):
            other.load_state_dict(state)


def test_header_of_a_safetensors_is_compared(tmp_path):
    state = {k: v.contiguous() for k, v in backbone("csa").tower.state_dict().items()}
    mark = readout_json(Readout(**UNSCALED))
    save_file(state, tmp_path / "declip.safetensors", metadata={"readout": mark})
    from_file(tmp_path / "declip.safetensors", UNSCALED)
    with pytest.raises(ValueError, match=r"declip.safetensors' was .*scale='none'.*'csa'"):
        from_file(tmp_path / "declip.safetensors", "csa")


def test_weights_without_a_mark_fit_every_readout(tmp_path):
    tower = backbone("vanilla").tower
    torch.save(tower.state_dict(), tmp_path / "clip.pt")
    for readout in ("vanilla", "csa", dict(blocks=2)):
        from_file(tmp_path / "clip.pt", readout)
