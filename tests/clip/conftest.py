"""A tiny CLIP with every parameter random, for tests of the numeric core."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch

from mmclipdis.clip.towers.build import OpenCLIPViT, build_image_tower
from tests.tiny import tiny_arch


@pytest.fixture
def arch() -> dict[str, Any]:
    return tiny_arch()


@pytest.fixture
def tower(arch: dict[str, Any]) -> OpenCLIPViT:
    """Float64 tower with random biases and norms (defaults would hide mistakes)."""
    torch.manual_seed(0)
    tower = build_image_tower(arch).double().eval()
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return tower


@pytest.fixture
def clip_model(arch: dict[str, Any], tower: OpenCLIPViT) -> open_clip.CLIP:
    """open_clip's own model with the same image weights."""
    model = open_clip.CLIP(**arch).double().eval()
    model.visual.load_state_dict(tower.visual.state_dict())
    return model


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.manual_seed(1))
