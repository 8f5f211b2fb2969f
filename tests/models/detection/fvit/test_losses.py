"""The registered loss: its weights, mmdet's calling convention, what it refuses."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import MODELS

from mmclipdis.losses.masked_cross_entropy import masked_cross_entropy
from mmclipdis.models.detection.fvit.losses import NovelMaskedCrossEntropyLoss

CLASSES = ("cat", "dog", "cow")


def test_weights_follow_from_names():
    cfg = dict(type="NovelMaskedCrossEntropyLoss", bg_weight=0.9)
    loss = MODELS.build(dict(cfg, classes=CLASSES, novel_classes=("dog",)))
    torch.testing.assert_close(loss.class_weight, torch.tensor([1, 0, 1, 0.9]))
    loss.set_novel([True, True, True])  # the config has decided
    torch.testing.assert_close(loss.class_weight, torch.tensor([1, 0, 1, 0.9]))
    free = MODELS.build(cfg)
    free.set_novel([True, False])
    torch.testing.assert_close(free.class_weight, torch.tensor([0, 1, 0.9]))


def test_is_called_like_mmdets_loss():
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 4), torch.randint(0, 4, (6,))
    weight = torch.tensor([1, 0, 1, 1, 0.5, 1])
    loss = NovelMaskedCrossEntropyLoss(class_weight=[1, 0, 1, 0.6], loss_weight=2.0)
    found = loss(logits, labels, weight, avg_factor=5.0, reduction_override=None)
    each = masked_cross_entropy(
        logits, labels, torch.tensor([1, 0, 1, 0.6]), sample_weight=weight, reduction="none"
    )
    torch.testing.assert_close(found, 2 * each.sum() / 5)
    torch.testing.assert_close(loss(logits, labels, weight, reduction_override="none"), 2 * each)


def test_unweighted_it_is_mmdets_loss():
    pytest.importorskip("mmdet")
    from mmdet.models.losses import CrossEntropyLoss

    logits, labels, weight = torch.randn(6, 4), torch.randint(0, 4, (6,)), torch.rand(6)
    ours = NovelMaskedCrossEntropyLoss(class_weight=[1, 1, 1, 1])
    torch.testing.assert_close(
        ours(logits, labels, weight, 5.0), CrossEntropyLoss()(logits, labels, weight, 5.0)
    )


def test_unknown_flags_are_an_error():
    loss = NovelMaskedCrossEntropyLoss()
    with pytest.raises(RuntimeError, match="which classes are novel"):
        loss(torch.zeros(1, 4), torch.zeros(1).long())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(class_weight=[1, 1], bg_weight=0.6), "holds all weights"),
        (dict(classes=CLASSES), "belong together"),
        (dict(classes=CLASSES, novel_classes=("cats",)), "'cats'"),
        (dict(classes=CLASSES, novel_classes="cat"), "is the text 'cat'"),
        (dict(bg_weight=0.0), "must be positive"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        NovelMaskedCrossEntropyLoss(**options)
