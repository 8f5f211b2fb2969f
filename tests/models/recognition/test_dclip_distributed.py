"""Ranks with different images end with one gradient, that of the joint batch."""

from __future__ import annotations

import torch
from mmengine.model import MMDistributedDataParallel
from torch import Tensor

from mmclipdis.models.recognition.dclip import DCLIP
from tests.models.recognition.tiny_dclip import batch, build
from tests.ranks import run_ranks

SIZES = (1, 3)  # images of a rank


def gradients(model: DCLIP) -> dict[str, Tensor]:
    return {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


def in_double(model: DCLIP) -> DCLIP:
    """In float64 a sum of gradients in another order differs by nothing that counts."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the ranks: text is computed in float32, and to the bit alike
    model.class_features()
    torch.set_num_threads(threads)
    return model.double().train()


def share(rank: int) -> tuple[Tensor, list]:
    images, labelled = batch(seed=rank, images=SIZES[rank])
    return images.double(), labelled


def run(rank: int) -> dict[str, Tensor]:
    model = MMDistributedDataParallel(in_double(build()))
    losses = model(*share(rank), mode="loss")
    sum(losses.values()).backward()
    return gradients(model.module)


def test_two_processes_have_the_gradient_of_the_joint_batch() -> None:
    ranks = run_ranks(run, 2)
    parts = [share(rank) for rank in (0, 1)]
    model = in_double(build())
    images = torch.cat([images for images, _ in parts])
    labelled = [sample for _, samples in parts for sample in samples]
    sum(model(images, labelled, mode="loss").values()).backward()
    expected = gradients(model)
    assert set(ranks[0]) == set(expected) and len(expected) == 5
    for name, gradient in expected.items():
        assert torch.equal(ranks[0][name], ranks[1][name])
        torch.testing.assert_close(ranks[0][name], gradient, rtol=1e-9, atol=1e-12)
    alone = in_double(build())
    sum(alone(*parts[1], mode="loss").values()).backward()
    assert not torch.allclose(gradients(alone)["projectors.image.weight"] * 4 / 3,
                              expected["projectors.image.weight"], rtol=1e-2)  # fmt: skip
