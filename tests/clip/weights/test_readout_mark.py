"""The readout saved with weights: in every state dict, checked however it is loaded."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.runner.checkpoint import get_state_dict, load_state_dict
from torch import nn

from mmclipdis.clip.towers.readout import READOUTS, DualPath, Readout, get_readout
from mmclipdis.clip.towers.readout_fields import Affinity
from mmclipdis.clip.weights.readout_mark import (
    check_readout,
    decode_readout,
    describe_readout,
    encode_readout,
    readout_json,
    remember_readout,
    same_readout,
)


class Backbone(nn.Module):
    def __init__(self, readout="csa", any_readout=False):
        super().__init__()
        self.tower = nn.Linear(2, 2)
        self.readout = get_readout(readout)
        self.any_readout = any_readout
        remember_readout(self)


class Model(nn.Module):
    """What a segmentor is to its backbone: the mark has a prefix, other parameters have none."""

    def __init__(self, *args, **kwargs):
        super().__init__()
        self.head = nn.Linear(2, 1)
        self.backbone = Backbone(*args, **kwargs)


def torch_load(model, state):
    return model.load_state_dict(state, strict=True)


def mmengine_load(model, state):
    return load_state_dict(model, state, strict=True)


BOTH_WAYS = pytest.mark.parametrize(
    ("save", "load"),
    [(nn.Module.state_dict, torch_load), (get_state_dict, mmengine_load)],
    ids=["torch", "mmengine"],
)
MODULES = pytest.mark.parametrize("kind", [Backbone, Model])


@MODULES
@BOTH_WAYS
def test_same_readout_loads_strictly_and_another_is_an_error(kind, save, load):
    state = save(kind("csa"))
    assert sum(key.endswith("readout") for key in state) == 1
    before = dict(state)
    target = kind("declip")
    load(target, state)
    assert all(torch.equal(v, state[k]) for k, v in save(target).items())
    assert state.keys() == before.keys()  # the caller's dict is left alone
    with pytest.raises(ValueError, match=r"'declip' \(also 'csa'\).*'clearclip' \(also 'qq'\)"):
        load(kind("qq"), state)
    load(kind("qq", any_readout=True), state)


@MODULES
@BOTH_WAYS
def test_scale_alone_is_another_readout(kind, save, load):
    unscaled = dict(attention=("qq", "kk"), scale="none")
    message = r"dict\(attention=\('qq', 'kk'\), scale='none'\), but .*set readout=dict\(att"
    with pytest.raises(ValueError, match=message):
        load(kind("csa"), save(kind(unscaled)))
    load(kind(unscaled), save(kind(unscaled)))


@MODULES
@BOTH_WAYS
def test_weights_without_a_mark_are_not_checked(kind, save, load):
    state = {k: v for k, v in save(kind("csa")).items() if not k.endswith("readout")}
    load(kind("qq"), state)


@BOTH_WAYS
def test_marks_pass_through_data_parallel(save, load):
    wrapped = nn.DataParallel(Model("csa"))
    state = save(wrapped)
    key = "backbone.readout" if save is get_state_dict else "module.backbone.readout"
    assert decode_readout(state[key], "") == READOUTS["csa"]
    load(nn.DataParallel(Model("csa")), state)
    with pytest.raises(ValueError, match="the checkpoint of .*backbone was saved with"):
        load(nn.DataParallel(Model("qq")), state)


def test_mark_is_what_the_readout_is_when_saving():
    model = copy.deepcopy(Model("csa"))
    model.backbone.readout = READOUTS["vv"]
    assert decode_readout(model.state_dict()["backbone.readout"], "") == READOUTS["vv"]
    again = pickle.loads(pickle.dumps(model))
    with pytest.raises(ValueError, match=r"'declip'.*'vv'"):
        again.load_state_dict(Model("csa").state_dict())


def test_averages_of_weights_keep_the_mark():
    model = Model("csa")
    average = ExponentialMovingAverage(model, momentum=0.5, update_buffers=True)
    for _ in range(2):
        nn.init.normal_(model.head.weight)
        average.update_parameters(model)
    assert decode_readout(average.state_dict()["module.backbone.readout"], "") == READOUTS["csa"]


def test_mark_is_not_a_parameter_or_buffer():
    model = Backbone()
    assert {name for name, _ in model.named_parameters()} == {"tower.weight", "tower.bias"}
    assert not list(model.buffers())


WEIGHED = Readout({"kk": 1.4, "layers": 0.6}, layers=(5, 6, -3), neighbours=5)
MASKED = Readout(("affinity", "qq"), affinity=Affinity(0.5, 4.0, scope="masks", merge=0.2))

BRANCHED = Readout("affinity", affinity={}, branches=dict(semantic=0, blocks=(1, -2)))


@pytest.mark.parametrize(
    "readout",
    [
        *READOUTS.values(),
        *(Readout(("vv", "qk"), "cls", True, "none"), DualPath(3), WEIGHED, MASKED, BRANCHED),
    ],
)
def test_every_readout_survives_every_form_of_the_mark(readout):
    mark = encode_readout(readout)
    forms = [mark, mark.half(), mark.bfloat16(), mark.float(), readout_json(readout)]
    assert all(decode_readout(form, "x.pt") == readout for form in forms)
    same = [name for name, known in READOUTS.items() if same_readout(known, readout)]
    assert all(repr(name) in describe_readout(readout) for name in same)
    assert same or get_readout(eval(describe_readout(readout))) == readout


def test_a_mark_names_the_branches():
    branches = json.loads(readout_json(READOUTS["corrclip"]))["branches"]
    assert branches == {"spatial": 1.0, "semantic": 0.5, "blocks": None}


@pytest.mark.parametrize("mark", ["csb", {"attn": "qq"}, 3, torch.tensor([123.0, 5.0]), "{"])
def test_what_is_no_readout_is_an_error_that_names_the_file(mark):
    with pytest.raises(ValueError, match="'x.pt' holds an entry 'readout' that is no readout"):
        decode_readout(mark, "x.pt")


@pytest.mark.parametrize("name", ["vanilla", "csa", "catseg", "all"])
def test_a_mark_of_an_earlier_package_means_the_defaults_and_stays_as_it_was(name):
    readout = READOUTS[name]
    earlier = {
        "attention": list(readout.attention),
        **{field: getattr(readout, field) for field in ("residual", "ffn", "scale")},
    }
    assert decode_readout(json.dumps(earlier), "x.pt") == readout
    assert json.loads(readout_json(readout)) == earlier


def test_factors_belong_to_terms_whatever_their_order():
    other = Readout({"layers": 0.6, "kk": 1.4}, layers=(5, 6, -3), neighbours=5)
    assert same_readout(WEIGHED, other)
    swapped = Readout({"layers": 1.4, "kk": 0.6}, layers=(5, 6, -3), neighbours=5)
    for changed in (swapped, READOUTS["naclip"], Readout(("kk",), neighbours=4)):
        assert not same_readout(WEIGHED, changed)
    assert not same_readout(READOUTS["naclip"], READOUTS["kk"])


def test_names_and_order_of_terms_do_not_matter():
    assert same_readout(READOUTS["csa"], Readout(("kk", "qq")))
    assert not same_readout(READOUTS["vanilla"], DualPath(0, ("qk",)))
    check_readout(None, READOUTS["qq"], "x.pt")
    check_readout(READOUTS["qq"], None, "x.pt")
    with pytest.raises(ValueError, match=r"x.pt was .*set readout='declip', or any_readout=True"):
        check_readout(READOUTS["csa"], READOUTS["sclip"], "x.pt")
