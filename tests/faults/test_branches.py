"""Branches that a readout, a tower or a segmentor cannot have end in one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.registry import MODELS

import mmclipdis  # noqa: F401  (registers the modules)
from mmclipdis.clip.towers.affinity import Guide
from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.towers.readout import READOUTS, get_readout
from tests.faults.endings import raises
from tests.tiny import tiny_arch, tiny_resnet_arch

MASKED = dict(scope="masks")


@pytest.mark.parametrize(
    ("readout", "line"),
    [
        (dict(attention="kk", branches={}), "branches need the term 'affinity'"),
        (
            dict(attention="affinity", affinity={}, branches={}),
            r"which needs masks: affinity=dict\(scope='masks'",
        ),
        (
            dict(attention="affinity", affinity=MASKED, branches=dict(alpha=1)),
            r"unknown Branches field\(s\) \['alpha'\]; known: \['spatial', 'semantic', 'blocks'\]",
        ),
        (
            dict(attention="affinity", affinity=MASKED, branches=dict(spatial=0, semantic=0)),
            "are both 0: leave branches out",
        ),
        (
            dict(attention="affinity", affinity=MASKED, branches=dict(spatial="1")),
            "Branches.spatial must be a number, got '1'",
        ),
        (
            dict(attention="affinity", affinity=MASKED, branches=dict(blocks="last")),
            "Branches.blocks must be numbers of blocks, got 'last'",
        ),
        (
            dict(attention="affinity", affinity=MASKED, branches=dict(spatial=0, blocks=2)),
            "the spatial branch is the mean of one block or more",
        ),
        (
            dict(attention="affinity", affinity=MASKED, branches=1.0),
            "is a dict of Branches, got 1.0",
        ),
        (dict(attention="affinity", affinity="vfm"), "is a dict of Affinity, got 'vfm'"),
    ],
)
def test_a_readout_says_what_its_branches_need(readout: dict[str, Any], line: str) -> None:
    raises(line, get_readout, readout)


@pytest.mark.parametrize("blocks", [(0, 2), (-4,), (1, 7)])
def test_blocks_that_a_tower_does_not_have_before_its_last(blocks: tuple[int, ...]) -> None:
    readout = dict(attention="affinity", affinity=MASKED, branches=dict(blocks=blocks))
    config = dict(type="CLIPViT", arch=tiny_arch(layers=3), readout=readout)
    raises("blocks=.* of a tower of 3 blocks; name blocks from 0 to 1", MODELS.build, config)
    shallow = dict(type="CLIPViT", arch=tiny_arch(layers=2), readout="corrclip")
    raises("its default range of a tower of 2 blocks", MODELS.build, shallow)


def test_no_masks_no_guide_and_no_one_set_of_tokens() -> None:
    tower = build_image_tower(tiny_arch(layers=3))
    images, readout = torch.randn(1, 3, 64, 64), READOUTS["corrclip"]
    unmasked = Guide(torch.randn(1, 4, 4, 4))
    raises("needs the masks of the photo", tower.forward_dense, images, readout, guide=unmasked)
    raises("needs the masks of the photo", tower.forward_dense, images, readout)
    masked = Guide(unmasked.tokens, torch.zeros(1, 4, 4, dtype=torch.int64))
    line = "a readout without branches"
    raises(line, tower.forward_dense, images, readout, guide=masked, with_tokens=True)


def test_a_resnet_has_no_branches() -> None:
    config = dict(type="CLIPResNet", arch=tiny_resnet_arch(), readout="corrclip")
    raises("affinity, which the attention pool of a CLIP ResNet has not", MODELS.build, config)
