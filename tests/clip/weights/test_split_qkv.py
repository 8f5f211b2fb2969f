"""A fused projection of timm's blocks in three parts, and parts that match nothing (1 s)."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from timm.models import create_model
from timm.models.eva import EvaBlock
from torch import nn

from mmclipdis.clip.towers.readout import READOUTS
from mmclipdis.clip.weights.loading import load_strictly
from mmclipdis.clip.weights.trainable import (
    SplitQKV,
    freeze_unread,
    fuse_qkv,
    set_trainable,
    split_qkv,
)
from tests.faults.endings import raises

TINY = dict(img_size=64, embed_dim=48, depth=3, num_heads=3)
IMAGES = torch.rand(2, 3, 64, 64)


def siglip() -> Any:
    torch.manual_seed(0)
    return create_model("vit_base_patch16_siglip_224", **TINY).eval()


class FusedEva(nn.Module):
    """Blocks of timm's EVA with one projection, and biases of q and v beside it."""

    def __init__(self, apart: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        options = dict(qkv_fused=True, qkv_bias=True)
        self.blocks = nn.Sequential(*(EvaBlock(48, 3, **options) for _ in range(3)))
        for block in self.blocks:
            block.attn.qkv_bias_separate = apart
            nn.init.normal_(block.attn.q_bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Any tokens through all blocks."""
        found: torch.Tensor = self.blocks(images.reshape(2, -1, 48))
        return found


MODELS = [siglip, FusedEva, lambda: FusedEva(apart=True)]


@pytest.mark.parametrize("make", MODELS)
def test_no_output_changes_by_a_bit(make: Any) -> None:
    model = make()
    before, gradient = model(IMAGES), fused_gradient(model)
    split_qkv(model)
    assert all(isinstance(block.attn.qkv, SplitQKV) for block in model.blocks)
    assert torch.equal(model(IMAGES), before)
    model(IMAGES).square().sum().backward()
    parts = [p.weight.grad for p in model.blocks[1].attn.qkv.children()]
    torch.testing.assert_close(torch.cat(parts), gradient)


def fused_gradient(model: Any) -> torch.Tensor:
    model(IMAGES).square().sum().backward()
    found: torch.Tensor = model.blocks[1].attn.qkv.weight.grad
    return found


@pytest.mark.parametrize("make", MODELS)
def test_q_and_v_are_trained_and_nothing_else_moves(make: Any) -> None:
    model = make()
    names = set_trainable(model, ("q", "v"))
    assert names == [f"blocks.{i}.attn.qkv.{n}_proj.weight" for i in range(3) for n in "qv"]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.1, weight_decay=0.1)
    model(IMAGES).square().sum().backward()
    optimizer.step()
    after = model.state_dict()
    assert {n for n in after if not torch.equal(after[n], before[n])} == set(names)


@pytest.mark.parametrize("make", MODELS)
def test_files_load_whichever_layout_they_have(make: Any) -> None:
    fused, split = make(), split_qkv(make())
    for value in (*fused.parameters(), *split.parameters()):
        nn.init.normal_(value.data)
    set_trainable(into := make(), ("k",))
    into.load_state_dict(fused.state_dict())  # as mmengine loads a checkpoint
    same_projections(into, fused)
    into = make()
    set_trainable(into, ())
    into.load_state_dict(split.state_dict())
    same_projections(into, split)
    load_strictly(into, fused.state_dict(), "tower", "file")
    same_projections(into, fused)
    assert set(into.state_dict()) == set(fused.state_dict())


def same_projections(one: Any, other: Any) -> None:
    for first, second in zip(one.blocks, other.blocks, strict=True):
        assert torch.equal(first.attn.qkv.weight, second.attn.qkv.weight)
        if first.attn.qkv.bias is not None:
            assert torch.equal(first.attn.qkv.bias, second.attn.qkv.bias)


def test_a_split_projection_is_copied_moved_and_saved() -> None:
    model = copy.deepcopy(split_qkv(siglip())).double()
    assert model(IMAGES.double()).dtype == torch.float64
    assert "out_features=48" in repr(model.blocks[0].attn.qkv.q_proj)


def test_the_last_blocks_of_a_timm_tower_are_trained() -> None:
    names = set_trainable(siglip(), ("blocks", 1))
    assert names and all(name.startswith("blocks.2.") for name in names)
    assert set_trainable(siglip(), ("blocks", 0)) == []


def test_what_a_readout_never_reads_stays_frozen() -> None:
    model = FusedEva()
    set_trainable(model, ("q", "v"))
    assert freeze_unread(model.blocks[-1], READOUTS["catseg"]) == ["qkv.q_proj.weight"]


@pytest.mark.parametrize("parts", [("q", "v"), ("blocks",)])
def test_a_tower_without_blocks_refuses_them(parts: tuple[str, ...]) -> None:
    tower = create_model("fastvit_t8", num_classes=0)
    line = r"trainable=\(.* matches nothing in this tower, which has 0 transformer blocks and \d+ "
    raises(
        line + r"parameters such as 'stem.*': choose \(\), \('all',\)", set_trainable, tower, parts
    )


@pytest.mark.parametrize("ending", [".attn.qkv.k_proj.weight", ".attn.k_proj_weight"])
def test_a_part_without_its_two_others_is_named(ending: str) -> None:
    other = ending.replace("k_proj", "q_proj")
    state = {f"blocks.0{ending}": torch.zeros(2, 2)}
    raises(rf"lack blocks.0{re.escape(other)}, .* not whole", fuse_qkv, state)
