"""What the OpenMMLab stack needs on today's PyTorch."""

from __future__ import annotations


def install() -> None:
    """Prepare the environment for the OpenMMLab packages."""
