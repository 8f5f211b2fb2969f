"""What detectors on a frozen ViT share, with a pyramid of two levels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import mmclipdis  # noqa: F401  (registers the modules)
from mmclipdis.models.detection.frozen_vit import FrozenViT
from tests.tiny import tiny_eva_arch

ENCODER = dict(
    type="CLIPViT", arch=tiny_eva_arch(img_size=32, patch_size=8, depth=4), readout="maskclip"
)


def build(
    blocks: tuple[int, ...] = (1, 3), last: str = "readout", normalize: str = "before"
) -> FrozenViT:
    torch.manual_seed(0)
    return FrozenViT(ENCODER, blocks, last, normalize, num_levels=2)


@pytest.mark.parametrize("last", ["readout", "vanilla"])
@pytest.mark.parametrize("training", [True, False])
def test_maps_of_the_blocks_and_of_the_joint_space(last, training):
    backbone = build(last=last).train(training)
    images = torch.randn(2, 3, 16, 32)
    blocks, dense = backbone.encode(images)
    tower = backbone.encoder.tower
    expected = tower.forward_dense(
        images, backbone.encoder.readout, intermediates=(1, 3), with_tokens=True
    )
    assert torch.equal(blocks[0], expected.intermediates[0])
    wanted = expected.tokens if last == "readout" else expected.intermediates[1]
    assert torch.equal(blocks[1], wanted)
    assert torch.equal(dense, F.normalize(expected.map, dim=1))
    assert torch.equal(build(last=last, normalize="after").encode(images)[1], expected.map)
    alone, nothing = backbone.encode(images, with_map=False)
    assert nothing is None
    for one, other in zip(alone, blocks, strict=True):
        torch.testing.assert_close(one, other)


def test_the_encoder_is_frozen_in_both_modes():
    backbone = build().train()
    assert backbone.training and not backbone.encoder.training
    assert not any(p.requires_grad for p in backbone.parameters())
    blocks, dense = backbone.encode(torch.randn(1, 3, 16, 16, requires_grad=True))
    assert not dense.requires_grad and not any(block.requires_grad for block in blocks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(blocks=(0, 1, 3)), r"FrozenViT.out_indices=\(0, 1, 3\): name 2 blocks"),
        (dict(blocks=(0, 2)), "level1='readout' reads the last block, 3"),
        (dict(last="first"), "FrozenViT.level1 must be one of readout, vanilla"),
    ],
)
def test_a_wrong_option_names_the_class_and_the_level(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_blocks_count_from_the_end_too():
    assert build((-2, -1)).out_indices == (2, 3)
