"""Half precision is for what learns, not for what is compared or located."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def at_least_fp32(values: Tensor) -> Tensor:
    """Half types in float32, others as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def without_autocast(values: Tensor) -> AbstractContextManager[None]:
    """Full precision inside the block; no block where autocast is off, which exports would keep."""
    kind = values.device.type
    if not torch.is_autocast_enabled(kind):
        return nullcontext()
    off: AbstractContextManager[None] = torch.autocast(kind, enabled=False)
    return off
