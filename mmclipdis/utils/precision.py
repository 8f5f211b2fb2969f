"""Half precision is for what learns, not for what is compared or located."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_fp32(values: Tensor) -> Tensor:
    """Half types in float32, others as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
