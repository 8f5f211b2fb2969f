"""MFI and asymmetric loss from a config: rows, weights, and the call of mmpretrain's head."""

from __future__ import annotations

import logging

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope, Registry
from torch import nn

import mmclipdis.models.losses as module
from mmclipdis.losses.asymmetric import asymmetric_loss
from mmclipdis.losses.mfi import mfi_loss
from tests.losses.multi_label import random_batch


def test_mfi_takes_all_rows_by_default_and_dclips_numbers():
    text = torch.randn(7, 5)  # an odd number will do
    loss = MODELS.build({"type": "MFILoss"})
    assert loss(text) == 7e-5 * mfi_loss(text, "feature", 0.2, "none", "none")
    assert loss.loss_name == "loss_mfi" and not list(loss.parameters())


@pytest.mark.parametrize("axis", ["feature", "class"])
def test_mfi_hands_on_its_options_and_chooses_rows(axis):
    text = torch.randn(8, 5)
    options = dict(axis=axis, lam=0.7, center="bn", normalize_by="rows")
    config = dict(type="MFILoss", loss_weight=2.0, **options)
    negative, positive = (2 * mfi_loss(rows, **options) for rows in (text[:4], text[4:]))
    both = 2 * mfi_loss(text, **options)
    found = {
        rows: MODELS.build({**config, "rows": rows})(text) for rows in ("all", "pos", "posneg")
    }
    torch.testing.assert_close(found, {"all": both, "pos": positive, "posneg": negative + positive})
    assert len({round(float(value), 4) for value in found.values()}) == 3


def test_two_matrices_do_not_compare_a_class_with_its_negative():
    """Golden rows of I: equal negatives and positives cost nothing apart, 0.2 x 8 together."""
    text = torch.eye(6)[:4].repeat(2, 1)
    for rows, value in (("posneg", 0.0), ("pos", 0.0), ("all", 1.6)):
        loss = MODELS.build(dict(type="MFILoss", axis="class", rows=rows, loss_weight=1.0))
        assert loss(text).item() == pytest.approx(value)


def test_positive_rows_leave_the_negative_ones_without_gradient():
    text = torch.randn(6, 5, requires_grad=True)
    MODELS.build(dict(type="MFILoss", rows="pos"))(text).backward()
    assert not text.grad[:3].any() and text.grad[3:].any()


@pytest.mark.parametrize("rows", ["pos", "posneg"])
def test_rows_must_be_halves(rows):
    with pytest.raises(ValueError, match=f"rows='{rows}' needs .*, got 5 rows; use rows='all'"):
        MODELS.build(dict(type="MFILoss", rows=rows))(torch.zeros(5, 4))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(type="MFILoss", rows="neg"), "rows must be one of all, pos, posneg, got 'neg'"),
        (dict(type="MFILoss", axis="row"), "axis must be one of"),
        (dict(type="MFILoss", lam=-1), "lam must be at least 0"),
        (dict(type="AsymmetricLoss", reduction="max"), "reduction must be one of"),
        (dict(type="AsymmetricLoss", clip=1.5), "clip is a probability"),
    ],
)
def test_a_wrong_option_is_an_error_when_built(config, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(config)


def test_asymmetric_has_dclips_defaults_and_is_weighted():
    logits, target = random_batch(unknown=0.3)
    loss = MODELS.build(dict(type="AsymmetricLoss", loss_weight=0.05))
    expected = 0.05 * asymmetric_loss(logits, target, 1, 2, 0.05, True, None, "sum")
    assert loss(logits, target) == expected
    assert loss.loss_name == "loss_asl" and not list(loss.parameters())


def test_asymmetric_hands_on_its_options(monkeypatch):
    logits, target = random_batch(unknown=0.3)
    weight = torch.rand(6)
    options = dict(gamma_pos=0.5, gamma_neg=3.0, clip=0.1, detach_focusing=False, eps=1e-3)
    loss = MODELS.build(dict(type="AsymmetricLoss", reduction="mean", **options))
    expected = asymmetric_loss(logits, target, reduction="mean", weight=weight, **options)
    assert loss(logits, target, weight) == expected
    seen = {}
    monkeypatch.setattr(module, "asymmetric_loss", lambda *a, **k: seen.update(k) or logits)
    MODELS.build(dict(type="AsymmetricLoss", across_ranks=False))(logits, target)
    assert seen["across_ranks"] is False


def test_a_call_can_have_a_reduction_of_its_own():
    logits, target = random_batch()
    loss = MODELS.build(dict(type="AsymmetricLoss", loss_weight=2.0))
    each = loss(logits, target, reduction_override="none")
    assert each.shape == logits.shape
    torch.testing.assert_close(loss(logits, target), each.sum())
    torch.testing.assert_close(loss(logits, target, reduction_override="mean"), each.mean())
    with pytest.raises(ValueError, match="reduction must be one of"):
        loss(logits, target, reduction_override="max")


class Head(nn.Module):
    """Calls its loss as mmpretrain's ``MultiLabelClsHead`` does."""

    def __init__(self, registry: Registry, loss: dict) -> None:
        super().__init__()
        self.loss_module = registry.build(loss)

    def loss(self, logits, target, **kwargs):
        return self.loss_module(logits, target, avg_factor=logits.size(0), **kwargs)


class OtherAsymmetricLoss(nn.Module):
    """Stands for mmpretrain's own loss of the same name."""


@pytest.fixture
def mmpretrain():
    """A registry as mmpretrain's, as the default scope; forgotten afterwards."""
    installed = MODELS._children.pop("mmpretrain", None)
    registry = Registry("model", parent=MODELS, scope="mmpretrain")
    registry.register_module(name="AsymmetricLoss", module=OtherAsymmetricLoss)
    try:
        with DefaultScope.overwrite_default_scope("mmpretrain"):
            yield registry
    finally:
        MODELS._children.pop("mmpretrain")
        if installed is not None:
            MODELS._children["mmpretrain"] = installed


@pytest.fixture
def warnings():
    """Those of the loss; mmengine has some of its own about the registry made up here."""
    lines = []

    class Lines(logging.Handler):
        def emit(self, record):
            if record.getMessage().startswith("AsymmetricLoss"):
                lines.append(record.getMessage())

    handler = Lines(logging.WARNING)
    logger = MMLogger.get_instance("losses_multi_label")
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def test_mmpretrains_head_finds_it_by_its_scope_and_divides_by_images(mmpretrain, warnings):
    logits, target = random_batch(unknown=0.3)
    assert isinstance(mmpretrain.build(dict(type="AsymmetricLoss")), OtherAsymmetricLoss)
    loss = dict(type="mmengine.AsymmetricLoss", reduction="mean", loss_weight=3.0)
    head = Head(mmpretrain, loss)
    assert isinstance(head.loss_module, module.AsymmetricLoss)
    torch.testing.assert_close(
        head.loss(logits, target), 3 * asymmetric_loss(logits, target) / len(logits)
    )
    each = head.loss(logits, target, weight=torch.rand(6), reduction_override="none")
    assert each.shape == logits.shape
    assert not warnings


def test_mmpretrains_head_with_a_sum_is_told_once_that_it_is_a_sum(mmpretrain, warnings):
    logits, target = random_batch()
    head = Head(mmpretrain, dict(type="mmengine.AsymmetricLoss"))
    for _ in range(2):
        assert head.loss(logits, target) == asymmetric_loss(logits, target)
    assert len(warnings) == 1
    assert "reduction='sum' leaves avg_factor=6 aside; set reduction='mean'" in warnings[0]
