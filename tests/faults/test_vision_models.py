"""A vision model that cannot give what is asked of it says so in one line."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from mmengine.registry import MODELS

from mmclipdis.clip.towers.last_block import LastBlockParts
from mmclipdis.models.vfm import TimmVFM
from tests.faults.endings import raises

TINY: dict[str, Any] = dict(depth=2, embed_dim=24, num_heads=2)
DINO: dict[str, Any] = dict(model="dino-B-8", model_kwargs=TINY)


def build(**options: Any) -> TimmVFM:
    found: TimmVFM = MODELS.build(dict(type="TimmVFM", **options))
    return found


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (dict(feature="qkv"), r"feature must be one of map, q, k, v, q\+k, got 'qkv'"),
        (dict(feature=["q", "k"]), "feature must be one of map"),
        (
            dict(model="resnet18", model_kwargs={}, feature="k"),
            r"feature='k' needs a ViT of timm .*'resnet18' is a ResNet: choose feature='map' or an",
        ),
        (
            dict(model_kwargs=dict(TINY, depth=1), feature="v"),
            "feature='v' needs a block before the last; 'dino-B-8' has one block",
        ),
        (dict(mean=[123.675, 116.28, 103.53]), "mean must be from 0 to 1, .* by 255"),
        (dict(std=0.5), "std must be three numbers, of red, green and blue; got 0.5"),
        (dict(input_size=100), "input_size=100 is no whole number of patches of 8 x 8 px, which"),
        (dict(input_size=0), r"input_size must be pixels a side, or \(height, width\); got 0"),
        (dict(input_size=(224, 224.0)), "input_size must be pixels a side"),
        (dict(input_size="224"), "input_size must be pixels a side"),
        (dict(input_size=True), "input_size must be pixels a side"),
        (
            dict(model="vit_large_patch16_radio_v3", model_kwargs={}),
            "by another rule than RADIO does; choose 'naflexvit_large_patch16_radio_v3'",
        ),
        (dict(model_kwargs=dict(embed_dim=25)), "model_kwargs=.* of 'dino-B-8': .*divisible"),
    ],
)
def test_a_constructor_says_it(options: dict[str, Any], line: str) -> None:
    raises(line, build, **{**DINO, **options})


def test_an_older_timm_lacks_newer_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "is_model", lambda name: "tipsv2" not in name)
    raises(
        r"^.*timm \d.* does not have 'vit_base_patch14_reg1_tipsv2.webli', which 'tipsv2-B' is: "
        "install a later timm",
        build,
        model="tipsv2-B",
    )


def test_a_model_of_one_size_says_which() -> None:
    swin = build(model="swin_tiny_patch4_window7_224", model_kwargs=dict(depths=(1, 1, 1, 1)))
    line = r"'swin_tiny.*' does not take images of 64 x 96 px \(.*\): give input_size or"
    raises(line, swin, torch.zeros(1, 3, 64, 96))


def test_stitching_needs_a_plain_vit() -> None:
    line = "the last block on stitched tokens is defined for timm's plain ViT, .*'sam-B' is a"
    sam = build(model="sam-B", model_kwargs=dict(TINY, global_attn_indexes=(1,)))
    raises(line, sam.last_block_parts, torch.zeros(1, 3, 32, 32))
    part = torch.zeros(1, 24, 2, 2)
    raises(line, sam.finish_last_block, LastBlockParts(part, part, part, part))
    net = build(model="resnet18")
    raises("stitched tokens needs a ViT .*'resnet18' is", net.last_block_parts, part)
