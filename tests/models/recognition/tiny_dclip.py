"""DCLIP on the tiny CLIP, and batches for it."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmclipdis.engine.random_weights import take_as_meant
from mmclipdis.models.recognition.dclip import DCLIP
from tests.tiny import tiny_arch

NAMES = ["cat", "dog", "red bus"]
WIDTH, SIDE = 32, 64


def small_arch() -> dict[str, Any]:
    """The tiny CLIP with a text tower that knows the tokens of real words."""
    arch = tiny_arch()
    return {**arch, "text_cfg": {**arch["text_cfg"], "vocab_size": 49408}}


def config(**changes: Any) -> dict[str, Any]:
    arch = small_arch()
    defaults = dict(
        encoder=dict(type="CLIPViT", arch=arch, positions="size"),
        text_encoder=dict(type="OpenCLIPTextEncoder", arch=arch, cache_dir=False, progress=False),
        projectors=dict(out_dim=8),
        vocabulary=NAMES,
    )
    return {**defaults, **changes}


def build(**changes: Any) -> DCLIP:
    torch.manual_seed(0)
    model = DCLIP(**config(**changes))
    take_as_meant(model)
    return model


def samples(scores: Tensor) -> list[BaseDataElement]:
    """A sample for every row of labels (B, N)."""
    made = []
    for number, row in enumerate(scores):
        sample = BaseDataElement(metainfo=dict(img_path=f"photo_{number}.jpg"))
        sample.gt_score = row
        made.append(sample)
    return made


def batch(seed: int = 0, images: int = 2) -> tuple[Tensor, list[BaseDataElement]]:
    """Normalised images and their samples, with labels -1, 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(images, 3, SIDE, SIDE, generator=generator)
    labels = torch.randint(-1, 2, (images, len(NAMES)), generator=generator)
    return pixels, samples(labels.float())
