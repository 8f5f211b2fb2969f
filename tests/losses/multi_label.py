"""Random images with several labels."""

from __future__ import annotations

import torch


def random_batch(images=6, classes=9, seed=0, unknown=0.0):
    """Logits and labels in {0, 1}, a part of them -1, both ``(images, classes)`` in float64."""
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(images, classes, generator=generator, dtype=torch.float64)
    target = (torch.rand(images, classes, generator=generator) < 0.4).double()
    target[torch.rand(images, classes, generator=generator) < unknown] = -1
    return logits, target
