"""Gathered binary cross-entropy: golden values, the dense form, gradients, bad labels."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mmclipdis.losses.sigmoid_bce import gathered_bce


def softplus(c):
    return math.log1p(math.exp(c))


@pytest.mark.parametrize("c", [0.0, 1.7, -3.0])
@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
def test_golden_constant_logits(c, fraction):
    classes = 7
    logits = torch.full((2, classes, 8, 8), c, dtype=torch.float64)
    labels = torch.full((2, 8, 8), 255)
    labels[:, : int(8 * fraction)] = 3
    expected = softplus(c) - c * fraction / classes
    assert gathered_bce(logits, labels).item() == pytest.approx(expected, abs=1e-12)
    proper = gathered_bce(logits, labels, ignore_as_negative=False).item()
    assert proper == pytest.approx(softplus(c) - c / classes if fraction else 0.0, abs=1e-12)


def test_golden_zero_logits():
    loss = gathered_bce(torch.zeros(1, 5, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long))
    assert loss.item() == pytest.approx(0.693147, abs=1e-6)


@pytest.mark.parametrize("ignore_as_negative", [True, False])
def test_equals_the_dense_form(ignore_as_negative):
    torch.manual_seed(0)
    logits = (30 * torch.randn(2, 4, 5, 6, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(0, 4, (2, 5, 6))
    labels[0, 1:3] = 255
    valid = labels != 255
    target = F.one_hot(labels.masked_fill(~valid, 0), 4) * valid[..., None]
    target = target.permute(0, 3, 1, 2).double()
    weight = torch.ones_like(target) if ignore_as_negative else valid[:, None].expand_as(target)
    dense = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    dense = (dense * weight).sum() / weight.sum()
    ours = gathered_bce(logits, labels, ignore_as_negative=ignore_as_negative)
    torch.testing.assert_close(ours, dense, atol=1e-12, rtol=1e-12)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, dense)]
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("ignore_as_negative", [True, False])
@pytest.mark.parametrize("chunk", [1, 2, 3, None])
def test_small_logits_are_resized_and_chunks_change_nothing(chunk, ignore_as_negative):
    torch.manual_seed(0)
    low = torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 5, (2, 7, 9))
    labels[1, :3] = 255
    full = F.interpolate(low, size=(7, 9), mode="bilinear")
    expected = gathered_bce(full, labels, ignore_as_negative=ignore_as_negative)
    loss = gathered_bce(low, labels, ignore_as_negative=ignore_as_negative, class_chunk=chunk)
    torch.testing.assert_close(loss, expected, atol=1e-12, rtol=0)
    gradients = [torch.autograd.grad(value, low)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)


def test_full_size_logits_exist_for_one_chunk_only():
    """Peak of forward and backward, counted by what autograd keeps between the two."""
    kept = []
    low = torch.randn(1, 64, 4, 4, requires_grad=True)
    labels = torch.zeros(1, 64, 64, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        gathered_bce(low, labels, class_chunk=8).backward()
    assert max(kept) <= 8 * 64 * 64


def test_gradcheck_through_upsampled_logits():
    torch.manual_seed(0)
    low = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 3, (2, 4, 6))
    labels[1, 0] = 255

    def loss(low):
        logits = F.interpolate(low, size=(4, 6), mode="bilinear", align_corners=False)
        return gathered_bce(logits, labels)

    assert torch.autograd.gradcheck(loss, low)


def test_ignored_pixels_are_negatives_only_when_asked():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.ones(1, 4, 4, dtype=torch.long)
    labels[0, 0] = 255
    gathered_bce(logits, labels).backward()
    assert (logits.grad[0, :, 0] > 0).all()  # pushed down
    logits.grad = None
    gathered_bce(logits, labels, ignore_as_negative=False).backward()
    assert not logits.grad[0, :, 0].any()


def test_no_valid_pixel_gives_zero_and_not_nan():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    labels = torch.full((1, 2, 2), 255)
    loss = gathered_bce(logits, labels, ignore_as_negative=False)
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def test_infinite_logits_of_ignored_pixels_do_not_spoil_the_loss():
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, :, 0, 0] = float("inf")
    labels = torch.zeros(1, 2, 2, dtype=torch.long)
    labels[0, 0, 0] = 255
    assert gathered_bce(logits, labels, ignore_as_negative=False).isfinite()


@pytest.mark.parametrize("label", [3, 7, -1])
def test_a_label_outside_the_vocabulary_is_named(label):
    labels = torch.zeros(1, 2, 2, dtype=torch.long)
    labels[0, 1, 1] = label
    with pytest.raises(ValueError, match=f"Label {label} in the data.*3 classes"):
        gathered_bce(torch.zeros(1, 3, 2, 2), labels)


def test_shapes_must_fit():
    with pytest.raises(ValueError, match="Expected logits"):
        gathered_bce(torch.zeros(1, 3, 2, 2), torch.zeros(2, 4, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="class_chunk"):
        gathered_bce(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2), class_chunk=0)
