"""Two processes with an image each end with the gradient of both images in one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from torch import Tensor

import mmclipdis  # noqa: F401  (first, in a rank too: it has mmcv's ops)

pytest.importorskip("mmdet")

from mmdet.models.task_modules.samplers import RandomSampler

from tests.models.detection.fvit import tiny as tiny_fvit
from tests.models.detection.fvit.test_parts import real_config, total
from tests.models.detection.fvit.tiny import batch
from tests.ranks import run_ranks


def first(self: RandomSampler, gallery: Tensor, num: int) -> Tensor:
    """In place of a random choice, of which every process would have its own."""
    return gallery[:num]


def in_double() -> Any:
    """Norms of single images: ranks share no statistics of a batch without a GPU."""
    norm = dict(type="GN", num_groups=4)
    cfg = real_config(norm_cfg=norm)
    cfg.backbone.norm_cfg = norm
    # Losses are means over the samples of a rank: all ranks have as many if no image lacks any.
    cfg.train_cfg.rcnn.sampler.num = 12
    torch.set_num_threads(1)
    model = tiny_fvit.build(cfg)
    model.roi_head.bbox_head.text.embeddings()
    return model.double().train()


def step(model: Any, images: list[int]) -> dict[str, Tensor]:
    RandomSampler.random_choice, kept = first, RandomSampler.random_choice
    try:
        bare = getattr(model, "module", model)
        data = batch(bare, True)
        samples = [data["data_samples"][i] for i in images]
        for sample in samples:
            sample.gt_instances.bboxes = sample.gt_instances.bboxes.double()
        total(model(data["inputs"][images].double(), samples, mode="loss")).backward()
        return {n: p.grad for n, p in bare.named_parameters() if p.requires_grad}
    finally:
        RandomSampler.random_choice = kept


def run(rank: int) -> dict[str, Tensor]:
    return step(MMDistributedDataParallel(in_double()), [rank])


def test_two_processes_have_the_gradient_of_the_joint_batch() -> None:
    threads = torch.get_num_threads()
    ranks = run_ranks(run, 2)
    expected, alone = step(in_double(), [0, 1]), step(in_double(), [1])
    torch.set_num_threads(threads)
    assert set(ranks[0]) == set(expected)
    for name, gradient in expected.items():
        assert gradient is not None and torch.equal(ranks[0][name], ranks[1][name]), name
        # mmdet adds 1.2e-7 to the number of samples, 12 an image or more, that it divides by
        bound = 1e-8 * float(gradient.abs().max()) + 1e-12
        torch.testing.assert_close(ranks[0][name], gradient, rtol=0, atol=bound)
    name = "neck.lateral_convs.0.conv.weight"
    assert not torch.allclose(alone[name], expected[name], rtol=1e-2)
