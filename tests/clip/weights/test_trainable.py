"""Trainable parts: the rule, the split of fused projections, and what stays bit-identical."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from mmclipdis.clip.towers.build import build_image_tower, build_text_transformer
from mmclipdis.clip.towers.image_tower import ImageTower
from mmclipdis.clip.towers.readout import READOUTS
from mmclipdis.clip.towers.readout_fields import Branches
from mmclipdis.clip.weights.trainable import (
    freeze_unread,
    match_qkv_layout,
    set_trainable,
    split_qkv,
)
from tests.tiny import tiny_eva_arch


def test_splitting_changes_no_output(tower, images):
    before = tower.forward_dense(images, READOUTS["vanilla"], with_cls=True)
    split_qkv(tower)
    after = tower.forward_dense(images, READOUTS["vanilla"], with_cls=True)
    torch.testing.assert_close(after.map, before.map, rtol=0, atol=1e-12)
    torch.testing.assert_close(after.cls, before.cls, rtol=0, atol=1e-12)


def test_fused_weights_load_into_a_split_tower_and_back(tower):
    fused = tower.state_dict()
    split = split_qkv(copy.deepcopy(tower))
    there = match_qkv_layout(fused, split)
    assert set(there) == set(split.state_dict())
    back = match_qkv_layout(there, tower)
    assert set(back) == set(fused)
    assert all(torch.equal(back[key], fused[key]) for key in fused)


def test_q_and_v_rule_trains_matrices_only(tower):
    names = set_trainable(tower, ("q", "v"))
    assert len(names) == 2 * tower.depth
    assert all(name.endswith(("q_proj_weight", "v_proj_weight")) for name in names)
    assert names == [name for name, p in tower.named_parameters() if p.requires_grad]


def test_one_step_with_weight_decay_moves_only_the_trained_parts(tower, images):
    set_trainable(tower, ("q", "v"))
    freeze_unread(tower.blocks[-1], READOUTS["catseg"])
    before = {name: p.detach().clone() for name, p in tower.named_parameters()}
    trained = [p for p in tower.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.1, weight_decay=0.1)
    tower.forward_dense(images, READOUTS["catseg"]).map.square().sum().backward()
    optimizer.step()
    moved = {n for n, p in tower.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n, p in tower.named_parameters() if p.requires_grad}
    assert len(moved) == 2 * tower.depth - 1


def test_a_value_only_readout_freezes_the_last_q(tower):
    set_trainable(tower, ("q", "v"))
    assert freeze_unread(tower.blocks[-1], READOUTS["catseg"]) == ["q_proj_weight"]
    assert freeze_unread(tower.blocks[-1], READOUTS["declip"]) == []


def test_none_and_all(tower):
    assert set_trainable(tower, ()) == []
    assert not any(p.requires_grad for p in tower.parameters())
    assert len(set_trainable(tower, ("all",))) == len(list(tower.parameters()))


def test_attention_is_all_that_the_attentions_hold(tower):
    names = set_trainable(tower, ("attention",))
    assert len(names) == 4 * tower.depth  # fused q, k, v and output projection, weight and bias
    assert names == [name for name, _ in tower.named_parameters() if ".attn." in name]
    assert set_trainable(tower, ("attention", "prefix")) == ["visual.class_embedding", *names]
    split = set_trainable(tower, ("attention", "q"))  # the three matrices apart
    assert len(split) == 6 * tower.depth and all(".attn." in name for name in split)


def test_prefix_is_the_tokens_before_the_patches(tower, images):
    assert set_trainable(tower, ("prefix",)) == ["visual.class_embedding"]
    tower.forward_dense(images, READOUTS["catseg"]).map.square().sum().backward()
    assert {n for n, p in tower.named_parameters() if p.grad is not None} == {
        "visual.class_embedding"
    }


def test_parts_that_a_text_tower_lacks_are_refused(arch):
    text = build_text_transformer(arch)
    names = set_trainable(text, ("attention",))
    assert names == [name for name, _ in text.named_parameters() if ".attn." in name]
    line = r"trainable=\('q', 'prefix'\) matches nothing .* some of \('q', 'k', 'v', 'attention'\)"
    with pytest.raises(ValueError, match=line):
        set_trainable(text, ("q", "prefix"))


@pytest.fixture
def eva() -> ImageTower:
    torch.manual_seed(0)
    return build_image_tower(tiny_eva_arch()).double()


def test_eva_trains_matrices_of_its_own_layout_and_loads_its_own_files(eva):
    before = {name: value.clone() for name, value in eva.state_dict().items()}
    names = set_trainable(eva, ("q", "v"))
    assert len(names) == 2 * eva.depth
    assert all(name.endswith(("attn.q_proj.weight", "attn.v_proj.weight")) for name in names)
    assert eva.state_dict().keys() == before.keys()
    other = build_image_tower(tiny_eva_arch()).double()
    set_trainable(other, ("k",))
    other.load_state_dict(eva.state_dict(), strict=True)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_unread_parts_of_an_eva_block_are_frozen_with_their_biases(eva):
    set_trainable(eva, ("blocks",))
    last = eva.blocks[-1]
    frozen = freeze_unread(last, READOUTS["kk"])
    assert frozen[:2] == ["q_proj.weight", "q_proj.bias"]
    assert all(name.startswith(("norm2.", "mlp.")) for name in frozen[2:])
    assert len(frozen) == 2 + 2 + len(list(last.mlp.parameters()))
    assert freeze_unread(last, READOUTS["vanilla"]) == []


def test_eva_has_prefix_and_attention_too(eva):
    assert set_trainable(eva, ("prefix",)) == ["visual.trunk.cls_token"]
    names = set_trainable(eva, ("attention",))
    assert names == [name for name, _ in eva.named_parameters() if ".attn." in name]
    frozen = freeze_unread(eva.blocks[-1], READOUTS["catseg"])
    assert frozen == ["q_proj.weight", "q_proj.bias", "k_proj.weight"]


def test_a_block_that_the_semantic_branch_runs_whole_is_not_frozen(eva):
    set_trainable(eva, ("blocks",))
    corrclip, last = READOUTS["corrclip"], eva.blocks[-1]
    assert freeze_unread(last, corrclip) == []
    spatial = dataclasses.replace(corrclip, branches=Branches(semantic=0))
    assert len(freeze_unread(last, spatial)) == 3 + 2 + len(list(last.mlp.parameters()))


@pytest.mark.parametrize("kind", ["tower", "eva"])
def test_the_last_blocks_are_trained_as_a_whole(kind, request):
    tower = request.getfixturevalue(kind)
    everything = set_trainable(tower, ("blocks",))
    assert everything == [name for name, _ in tower.named_parameters() if "blocks." in name]
    last = set_trainable(tower, ("blocks", 1))
    assert last == [name for name in everything if "blocks.2." in name]
    assert len(last) == len(list(tower.blocks[-1].parameters()))
    assert last == [name for name, p in tower.named_parameters() if p.requires_grad]
    assert set_trainable(tower, ("blocks", 3)) == everything
    assert set_trainable(tower, ("blocks", 0)) == []


def test_blocks_of_a_text_tower_are_found_too(arch):
    text = build_text_transformer(arch)
    names = set_trainable(text, ("blocks", 1))
    assert names and all(name.startswith("transformer.resblocks.1.") for name in names)


@pytest.mark.parametrize("count", [-1, 4])
def test_more_blocks_than_there_are_is_an_error(tower, count):
    with pytest.raises(ValueError, match="the tower has 3 blocks, choose 0 to that many"):
        set_trainable(tower, ("blocks", count))


@pytest.mark.parametrize(
    "parts",
    [
        ("w",),
        ("all", "q"),
        ("all", "attention"),
        ("blocks", "prefix"),
        ("blocks", "q"),
        ("blocks", True),
        ("q", 2),
        (2,),
        ("all", 2),
    ],
)
def test_unknown_parts_are_an_error(tower, parts):
    with pytest.raises(ValueError, match="choose \\(\\), \\('all',\\) or some of"):
        set_trainable(tower, parts)
