"""What PyTorch's tracer, by which tools count FLOPs, need not follow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def untraced() -> Iterator[None]:
    """Whatever is computed inside is a constant for ``torch.jit.trace``; else nothing changes."""
    tracer: Any = torch._C  # its setter is in no type stub
    state = tracer._get_tracing_state()
    if state is None:
        yield
        return
    tracer._set_tracing_state(None)
    try:
        yield
    finally:
        tracer._set_tracing_state(state)
