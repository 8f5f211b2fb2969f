"""Losses of the registry: built from a config, weighted, named."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import MODELS

import mmclipdis.models.losses  # noqa: F401  registers
from mmclipdis.losses.content import content_loss
from mmclipdis.losses.context_correlation import context_correlation_loss


def test_content_loss_is_weighted():
    student, teacher = torch.randn(2, 5, 8)
    loss = MODELS.build({"type": "ContentLoss", "loss_weight": 2.0})
    assert loss(student, teacher) == 2 * content_loss(student, teacher)
    assert loss.loss_name == "loss_content"


def test_context_loss_is_weighted_and_hands_on_weights_and_chunk():
    students, teachers = torch.randn(2, 1, 5, 3, 4), torch.randn(2, 1, 7, 3, 4)
    loss = MODELS.build({"type": "ContextCorrelationLoss", "loss_weight": 0.05, "chunk": 5})
    expected = 0.05 * context_correlation_loss(list(students), list(teachers), (0.9, 0.1))
    torch.testing.assert_close(loss(list(students), list(teachers), (0.9, 0.1)), expected)
    assert not torch.isclose(loss(list(students), list(teachers)), expected)
    assert loss.loss_name == "loss_context"
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        MODELS.build({"type": "ContextCorrelationLoss", "chunk": 0})(students[0], teachers[0])


@pytest.mark.parametrize(
    "kind",
    ["GatheredBCELoss", "ContentLoss", "ContextCorrelationLoss", "MFILoss", "AsymmetricLoss"],
)
def test_a_name_without_loss_would_not_be_optimised(kind):
    assert MODELS.build({"type": kind, "loss_name": "loss_x"}).loss_name == "loss_x"
    with pytest.raises(ValueError, match="loss_name must contain 'loss', got 'context'"):
        MODELS.build({"type": kind, "loss_name": "context"})
