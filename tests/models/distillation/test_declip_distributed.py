"""Golden G18: ranks with different data end with one gradient, that of the joint batch."""

from __future__ import annotations

import torch
from mmengine.model import MMDistributedDataParallel
from torch import Tensor

from tests.models.distillation.test_declip import GRID, PATCH, batch, build
from tests.ranks import run_ranks

BOXES = (2, 5)  # a rank: the batch's mean is not the mean of the ranks' means


def joint(parts: list[dict]) -> dict:
    index = torch.cat(
        [p["boxes"] + torch.tensor([2.0 * i, 0, 0, 0, 0]) for i, p in enumerate(parts)]
    )
    side = PATCH * GRID
    return dict(
        image=torch.cat([p["image"] for p in parts]),
        crops=torch.cat([p["crops"] for p in parts]),
        boxes=index,
        proxies={side: torch.cat([p["proxies"][side] for p in parts])},
    )


def run(rank: int) -> dict[str, Tensor]:
    model = MMDistributedDataParallel(build().train())
    losses = model(batch(seed=rank, boxes=BOXES[rank]), mode="loss")
    sum(losses.values()).backward()
    return {n: p.grad for n, p in model.module.named_parameters() if p.requires_grad}


def test_two_processes_have_the_gradient_of_the_joint_batch() -> None:
    ranks: list[dict[str, Tensor]] = run_ranks(run, 2)
    model = build().train()
    inputs = joint([batch(seed=rank, boxes=BOXES[rank]) for rank in (0, 1)])
    sum(model(inputs, mode="loss").values()).backward()
    expected = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert set(ranks[0]) == set(expected)
    for name, gradient in expected.items():
        assert torch.equal(ranks[0][name], ranks[1][name])
        torch.testing.assert_close(ranks[0][name], gradient, rtol=1e-4, atol=1e-6)
    alone = build().train()
    sum(alone(batch(seed=0, boxes=BOXES[0]), mode="loss").values()).backward()
    lonely = {n: p.grad for n, p in alone.named_parameters() if p.requires_grad}
    assert not all(torch.allclose(lonely[n], expected[n], rtol=1e-2) for n in expected)
