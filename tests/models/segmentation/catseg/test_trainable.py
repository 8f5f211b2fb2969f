"""Which parameters CAT-Seg tunes, by the words of ``--cfg-options`` (15 s, most of it configs)."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmseg.registry import MODELS

from mmclipdis.engine.random_weights import take_as_meant
from tests.models.segmentation.catseg.test_segmentor import sample
from tests.models.segmentation.catseg.tiny import shrink_model
from tests.words import config_of

CONFIGS = {"catseg/catseg_vitb16_coco-stuff": 16, "shapes/catseg": 8}
ENCODERS = ("image_encoder", "text_encoder")
FUSED, APART = r"attn\.(in_proj|out_proj)", r"attn\.([{}]_proj_weight)"
#: Value of ``trainable`` -> what the names of trained parameters look like, in the image encoder
#: and in the text encoder; None: all there are.
ROWS: dict[str, tuple[str | None, str | None]] = {
    "()": ("(?!)", "(?!)"),
    "(q,v)": (APART.format("qv"), APART.format("qv")),
    "(q,k,v)": (APART.format("qkv"), APART.format("qkv")),
    "(attention,)": (FUSED, FUSED),
    "(blocks,)": (r"resblocks\.", r"resblocks\."),
    "(all,)": (None, None),
}


def build(config: str, words: str) -> tuple[Any, Config]:
    found = config_of(config, words)
    shrink_model(found.model, CONFIGS[config])
    found.model.vocabulary = ["sky", "sea", "boat", "sand", "rock"]
    torch.manual_seed(0)
    model = MODELS.build(found.model)
    take_as_meant(model)
    return model.train(), found


def step(model: Any, config: Config) -> dict[str, torch.Tensor]:
    """A training step with the config's optimizer; the parameters before it."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config.optim_wrapper.optimizer.lr = 0.1  # float32 would round published steps away
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    side = model.clip_size[0]
    torch.manual_seed(1)
    losses = model.loss(torch.randn(2, 3, side, side), [sample(side, side) for _ in range(2)])
    sum(v for n, v in losses.items() if "loss" in n).backward()
    wrapper.optimizer.step()
    groups = {id(p): g["lr"] for g in wrapper.optimizer.param_groups for p in g["params"]}
    for name, p in model.named_parameters():
        of_encoder = name.startswith(ENCODERS)
        lr = wrapper.optimizer.defaults["lr"]
        share = config.optim_wrapper.paramwise_cfg.custom_keys.image_encoder.lr_mult
        if p.requires_grad:
            assert groups[id(p)] == pytest.approx(lr * share if of_encoder else lr), name
        elif p.grad is not None:
            raise AssertionError(f"{name} is frozen and has a gradient")
    return before


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("value", ROWS)
def test_a_step_moves_exactly_what_the_words_name(config: str, value: str) -> None:
    model, found = build(
        config, " ".join(f"model.{encoder}.trainable={value}" for encoder in ENCODERS)
    )
    before = step(model, found)
    for encoder, pattern in zip(ENCODERS, ROWS[value], strict=True):
        own = {n: p for n, p in model.named_parameters() if n.startswith(f"{encoder}.")}
        wanted = {n for n in own if pattern is None or re.search(pattern, n)}
        unread = {n for n in wanted if not own[n].requires_grad}
        if encoder == "image_encoder" and "q_proj" in str(wanted):
            last = model.image_encoder.num_blocks - 1  # read by value only
            parts = ("q", "k") if value == "(q,k,v)" else ("q",)
            assert {n.rpartition(f"resblocks.{last}.attn.")[2] for n in unread} == {
                f"{part}_proj_weight" for part in parts
            }
        else:
            assert not unread
        assert {n for n, p in own.items() if p.requires_grad} == wanted - unread
        assert {n for n, p in own.items() if p.grad is not None} == wanted - unread
        moved = {n for n, p in own.items() if not torch.equal(p, before[n])}
        assert moved == wanted - unread
    head = {n for n, _ in model.named_parameters() if not n.startswith(ENCODERS)}
    assert any(not torch.equal(model.get_parameter(n), before[n]) for n in head)


@pytest.mark.parametrize("image", [True, False])
def test_one_tower_alone(image: bool) -> None:
    frozen, trained = ENCODERS[::-1] if image else ENCODERS
    model, found = build("shapes/catseg", f"model.{frozen}.trainable=()")
    before = step(model, found)
    moved = {
        name.split(".")[0]
        for name, p in model.named_parameters()
        if not torch.equal(p, before[name])
    }
    assert trained in moved and frozen not in moved


def test_tokens_before_the_patches_are_of_the_image_tower_alone() -> None:
    model, found = build(
        "shapes/catseg",
        "model.image_encoder.trainable=(prefix,) model.text_encoder.trainable=()",
    )
    before = step(model, found)
    moved = [
        n
        for n, p in model.named_parameters()
        if n.startswith(ENCODERS) and not torch.equal(p, before[n])
    ]
    assert moved == ["image_encoder.tower.visual.class_embedding"]
    with pytest.raises(ValueError, match="matches nothing in this tower"):
        build("shapes/catseg", "model.text_encoder.trainable=(prefix,)")
