"""What F-ViT computes once, and no more than that."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("mmdet")

from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead

from mmclipdis.models.detection.fvit import bbox_head as fvit_bbox_head
from tests.models.detection.fvit.test_parts import real_config
from tests.models.detection.fvit.tiny import CLASSES, NOVEL, batch, build, config


def count(monkeypatch, owner, name):
    """Calls of a method, with their first argument."""
    calls = []
    method = getattr(owner, name)
    monkeypatch.setattr(
        owner, name, lambda *args, **kwargs: (calls.append(args[0]), method(*args, **kwargs))[1]
    )
    return calls


@pytest.mark.parametrize("training", [True, False])
def test_the_tower_runs_once_an_image(monkeypatch, training):
    model = build(real_config()).train(training)
    images = []
    trunk = model.backbone.encoder.tower.visual.trunk
    patches = trunk.patch_embed.proj
    patches.register_forward_hook(lambda _, args, __: images.append(len(args[0])))
    blocks = []
    for block in trunk.blocks[:-1]:  # the last is the readout's
        block.mlp.register_forward_hook(lambda *_: blocks.append(1))
    for _ in range(3):
        model(**batch(model, training), mode="loss" if training else "predict")
    assert images == [2, 2, 2]  # both images of a batch together
    assert len(blocks) == 3 * (len(trunk.blocks) - 1)


@pytest.mark.parametrize("training", [True, False])
def test_text_is_embedded_once_a_vocabulary(monkeypatch, training):
    model = build().train(training)
    calls = count(monkeypatch, model.roi_head.bbox_head.text.encoder, "embed")
    data, mode = batch(model, training), "loss" if training else "predict"
    for _ in range(3):
        model(**data, mode=mode)
    assert len(calls) == 1
    model.set_vocabulary(CLASSES, NOVEL)  # what the hook says before every epoch
    model.train(not training).train(training)
    model(**data, mode=mode)
    assert len(calls) == 1
    model.set_vocabulary((*CLASSES, "tree"), NOVEL)
    model(**data, mode=mode)
    assert len(calls) == 2
    assert calls[1].class_names == (*CLASSES, "tree", "background")


def test_regions_in_parts_are_those_in_one(monkeypatch):
    head = build(config()).roi_head.bbox_head.eval()
    features = torch.randn(11, 16, 7, 7)
    with torch.no_grad():
        whole = head(features)
        monkeypatch.setattr(fvit_bbox_head, "CHUNK", 4)
        parts = count(monkeypatch, ConvFCBBoxHead, "forward")
        found = head(features)
        assert len(parts) == 3
        for ours, expected in zip(found, whole, strict=True):
            torch.testing.assert_close(ours, expected)
        head.train()(features)  # batch norm needs all of them
    assert len(parts) == 4


@pytest.mark.parametrize(("score", "pooled"), [("fused", 1), ("vlm", 1), ("detector", 0)])
def test_clip_pools_only_for_scores_that_read_it(monkeypatch, score, pooled):
    from mmclipdis.models.detection.fvit import roi_head as fvit_roi_head

    model = build(config(score=score)).eval()
    calls = count(monkeypatch, fvit_roi_head, "region_embeddings")
    model(**batch(model, False), mode="predict")
    assert len(calls) == pooled
