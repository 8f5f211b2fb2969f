"""A backbone whose scores are known: each patch feature is the mean of its pixels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmclipdis.models.segmentation import OpenVocabSegmentor


@MODELS.register_module()
class PatchMeanBackbone(nn.Module):
    """Mean colour of each patch, after a weight that can learn; one extra channel of ones."""

    def __init__(self, patch: int = 4) -> None:
        super().__init__()
        self.patch_size = (patch, patch)
        self.gain = nn.Parameter(torch.ones(3))
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return ((B, 4, h, w),); records the batch size."""
        self.batches.append(len(images))
        means = F.avg_pool2d(images, self.patch_size) * self.gain.view(1, 3, 1, 1)
        return (torch.cat([means, torch.ones_like(means[:, :1])], dim=1),)


NAMES = ["red thing", "green thing", "blue thing", "ground"]


def head_cfg(**kwargs: Any) -> dict[str, Any]:
    """A head whose four classes point along the four channels."""
    return {
        "type": "CosineSegHead",
        "embeddings": torch.eye(4),
        "vocabulary": NAMES,
        "logit_scale": 10.0,
        **kwargs,
    }


def make_segmentor(head: dict[str, Any] | None = None, **test_cfg: Any) -> OpenVocabSegmentor:
    """The fake backbone under the real segmentor, in float64."""
    model = OpenVocabSegmentor(
        backbone={"type": "PatchMeanBackbone"},
        decode_head=head_cfg(**(head or {})),
        test_cfg=test_cfg or None,
    )
    return model.double().eval()
