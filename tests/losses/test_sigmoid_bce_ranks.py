"""CAT-Seg's losses of a batch that two processes share, with ignored pixels on one of them."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from mmclipdis.losses.sigmoid_bce import gathered_bce
from tests.ranks import run_ranks

#: Rows of the second rank's map (6 of them) that are ignored.
IGNORED = {"a third": 2, "all": 6, "none": 0}


def _batch(ignored, rank=None):
    """Logits and labels of one image a rank, or of both."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 5, 3, 4, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, 5, (2, 6, 8), generator=generator)
    labels[1, : IGNORED[ignored]] = 255
    mine = slice(None) if rank is None else slice(rank, rank + 1)
    return features[mine], labels[mine]


def _mmseg_losses():
    from mmseg.models.losses import CrossEntropyLoss

    from mmclipdis.models.segmentation.labels import joint_count

    def of(loss):
        def call(logits, labels):
            logits = torch.nn.functional.interpolate(logits, labels.shape[-2:], mode="bilinear")
            counted = joint_count(loss, labels, logits.shape[1], 255)
            return loss(logits, labels, ignore_index=255, **counted)

        return call

    options = {"avg_non_ignore": True, "loss_weight": 2.0}
    return {
        "softmax": of(CrossEntropyLoss(**options)),
        "sigmoid": of(CrossEntropyLoss(use_sigmoid=True, **options)),
    }


def _losses():
    def ours(negative):
        return lambda *batch: gathered_bce(*batch, ignore_as_negative=negative, class_chunk=2)

    return {"left out": ours(False), "negative": ours(True), **_mmseg_losses()}


def _step(loss, features, labels):
    """Loss of a linear model's logits, and the gradient of its weight."""
    weight = torch.eye(5, dtype=torch.float64, requires_grad=True)
    value = loss(torch.einsum("bchw,cd->bdhw", features, weight), labels)
    value.backward()
    return torch.cat([value.detach().reshape(1).double(), weight.grad.flatten()])


def _rank(rank):
    """Average over two ranks, as DDP takes it, against the joint batch."""
    averages = {}
    for name, loss in _losses().items():
        for ignored in IGNORED:
            average = _step(loss, *_batch(ignored, rank))
            dist.all_reduce(average)
            averages[name, ignored] = average / 2
    dist.destroy_process_group()
    for (name, ignored), average in averages.items():
        joint = _step(_losses()[name], *_batch(ignored))
        torch.testing.assert_close(average, joint, rtol=1e-6, atol=1e-7, msg=f"{name}, {ignored}")
        if ignored == "a third" and name != "negative":
            alone = [_step(_losses()[name], *_batch(ignored, one)) for one in range(2)]
            assert not torch.allclose((alone[0] + alone[1]) / 2, joint, rtol=0.002)


def test_the_average_of_two_ranks_is_the_joint_batch():
    """Value and gradient, however the ignored pixels are distributed."""
    run_ranks(_rank, 2)


def test_a_process_may_count_for_itself():
    features, labels = _batch("a third")
    both = gathered_bce(features, labels, ignore_as_negative=False, across_ranks=False)
    assert both.item() == pytest.approx(
        gathered_bce(features, labels, ignore_as_negative=False).item(), rel=1e-12
    )
