"""Distributed testing without DistributedDataParallel."""

from __future__ import annotations

from typing import Any

from mmengine.registry import MODEL_WRAPPERS
from torch import nn


@MODEL_WRAPPERS.register_module()
class Unwrapped:
    """``model_wrapper_cfg=dict(type='Unwrapped')``: the model stays as it is.

    Testing synchronises no gradient, and ``DistributedDataParallel`` refuses models without any,
    such as training-free ones. (A class, because mmengine asks what it inherits from.)
    """

    def __new__(cls, module: nn.Module, **options: Any) -> nn.Module:  # type: ignore[misc]
        """Return ``module``; ``options`` are those of the wrapper that is not made."""
        return module
