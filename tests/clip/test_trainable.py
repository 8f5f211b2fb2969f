"""Trainable parts: the rule, the split of fused projections, and what stays bit-identical."""

from __future__ import annotations

import copy

import pytest
import torch

from mmclipdis.clip.readout import READOUTS
from mmclipdis.clip.trainable import freeze_unread, match_qkv_layout, set_trainable, split_qkv


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


@pytest.mark.parametrize("parts", [("w",), ("all", "q")])
def test_unknown_parts_are_an_error(tower, parts):
    with pytest.raises(ValueError, match="choose \\(\\), \\('all',\\) or some of"):
        set_trainable(tower, parts)
