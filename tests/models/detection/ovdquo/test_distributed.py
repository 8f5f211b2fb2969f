"""Two processes with an image each end with the gradient of both images in one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from torch import Tensor

import mmclipdis  # noqa: F401  (first, in a rank too: it has mmcv's ops)

pytest.importorskip("mmdet")

from mmdet.models.layers import inverse_sigmoid

from tests.models.detection.ovdquo.tiny import batch, build, config
from tests.ranks import run_ranks

#: Real and pseudo boxes of both images. Groups of denoising follow from the most pseudo boxes of an
#: image, of which every process knows its own.
LABELS = {
    "pseudo": ((0, 2, 3, 0, 2, -1, -1), (5, 0, 2, 3, -1, -1)),
    "without": ((0, 2), ()),
    "none": ((), ()),
}


def copies(boxes: Tensor, groups: int) -> Tensor:
    """In place of noisy boxes, of which every process would have its own."""
    return inverse_sigmoid(boxes.repeat(2 * groups, 1), eps=1e-3)


def each_in_turn(boxes: Tensor, *_: object) -> Tensor:
    """In place of the classes that CLIP sees: all four, and the wildcard."""
    return (torch.arange(boxes.shape[1]) % 5).expand(boxes.shape[:2])


def in_double() -> Any:
    torch.set_num_threads(1)
    model = build(config(dn_cfg=dict(num_queries=60, label_noise=0.0)))
    model.dn_query_generator.generate_dn_bbox_query = copies
    model._classes_at = each_in_turn
    model.bbox_head.text.embeddings()
    return model.double().train()


def step(model: Any, case: str, images: list[int]) -> dict[str, Tensor]:
    bare = getattr(model, "module", model)
    model.zero_grad(set_to_none=True)
    data = batch(bare, True, LABELS[case])
    samples = [data["data_samples"][i] for i in images]
    for sample in samples:  # large boxes, which queries of every class touch
        low, high = sample.gt_instances.bboxes.split(2, dim=1)
        sample.gt_instances.bboxes = torch.cat([0.2 * low, high + 24], dim=1)
    found = model(data["inputs"][images].double(), samples, mode="loss")
    sum(value for name, value in found.items() if "loss" in name).backward()
    return {n: p.grad.clone() for n, p in bare.named_parameters() if p.requires_grad}


def run(rank: int) -> dict[str, dict[str, Tensor]]:
    model = MMDistributedDataParallel(in_double())  # which finds no unused parameters
    return {case: step(model, case, [rank]) for case in LABELS}


def test_two_processes_have_the_gradient_of_the_joint_batch() -> None:
    threads = torch.get_num_threads()
    ranks = run_ranks(run, 2)
    model = in_double()
    expected, alone = step(model, "pseudo", [0, 1]), step(model, "pseudo", [1])
    assert set(ranks[0]["pseudo"]) == set(expected)
    for name, gradient in expected.items():
        bound = 1e-8 * float(gradient.abs().max()) + 1e-12
        torch.testing.assert_close(ranks[0]["pseudo"][name], gradient, rtol=0, atol=bound)
    name = "encoder.layers.0.self_attn.value_proj.weight"
    assert not torch.allclose(alone[name], expected[name], rtol=1e-2)
    # nor does a process without a box, or a batch without any, keep another one waiting
    for case in LABELS:
        for name, gradient in ranks[0][case].items():
            assert torch.equal(gradient, ranks[1][case][name]) and gradient.isfinite().all(), name
    torch.set_num_threads(threads)
