"""Blocks without gradients run by functions of our own: equal to open_clip's, input untouched."""

from __future__ import annotations

import pytest
import torch

from mmclipdis.clip.towers.attention import run_block
from mmclipdis.clip.towers.blocks import feed_forward
from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.towers.readout import READOUTS
from mmclipdis.clip.weights.trainable import set_trainable
from tests.clip.readouts import UNGUIDED_READOUTS, fitted

TOLERANCE = dict(rtol=0, atol=1e-10)


@pytest.mark.parametrize("quick_gelu", [True, False])
@pytest.mark.parametrize("split", [False, True])
def test_a_block_without_gradients_equals_open_clips(arch, quick_gelu, split):
    torch.manual_seed(0)
    tower = build_image_tower({**arch, "quick_gelu": quick_gelu}).double().eval()
    if split:
        set_trainable(tower, ("q", "v"))
    block = tower.blocks[0]
    x = torch.randn(2, 17, tower.width, dtype=torch.float64)
    before = x.clone()
    with torch.no_grad():
        got = run_block(block, x)
    torch.testing.assert_close(got, block(x), **TOLERANCE)
    assert torch.equal(x, before)


def test_the_feed_forward_branch_keeps_its_input_and_its_gradient(tower):
    x = torch.randn(3, tower.width, dtype=torch.float64, requires_grad=True)
    mlp = tower.blocks[0].mlp
    with torch.no_grad():
        inference = feed_forward(mlp, x)
    training = feed_forward(mlp, x)
    training.sum().backward()
    torch.testing.assert_close(inference, training.detach(), **TOLERANCE)
    assert x.grad is not None and bool(x.grad.abs().max() > 0)


@pytest.mark.parametrize("name", UNGUIDED_READOUTS)
def test_dense_features_do_not_depend_on_gradient_mode(tower, images, name):
    readout = fitted(name)
    options = dict(intermediates=(0, -1), context=("q",), with_cls=True)
    expected = tower.forward_dense(images, readout, **options)
    with torch.inference_mode():
        got = tower.forward_dense(images, readout, **options)
    torch.testing.assert_close(got.map, expected.map.detach(), **TOLERANCE)
    torch.testing.assert_close(got.cls, expected.cls.detach(), **TOLERANCE)
    for ours, theirs in zip(got.intermediates, expected.intermediates, strict=True):
        torch.testing.assert_close(ours, theirs.detach(), **TOLERANCE)


@pytest.mark.parametrize("train", [False, True])
def test_under_autocast_the_residual_stream_has_open_clips_type(tower, images, train):
    tower, images = tower.float(), images.float()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.set_grad_enabled(train):
        embedded, expected = tower.embed(images), tower.visual._embeds(images)
        outputs = tower.forward_dense(images, READOUTS["csa"], intermediates=(0, 1)).intermediates
        wanted = tower.visual.forward_intermediates(images, indices=[0, 1])["image_intermediates"]
    assert embedded.dtype == expected.dtype and torch.equal(embedded, expected)
    for output, want in zip(outputs, wanted, strict=True):
        assert output.dtype == want.dtype
        assert (output - want).abs().max() < 0.05 * want.abs().max()


def test_a_tower_in_half_precision_runs(tower, images):
    half = tower.bfloat16().forward_dense(images.bfloat16(), READOUTS["csa"]).map
    assert half.dtype == torch.bfloat16 and bool(half.isfinite().all())
