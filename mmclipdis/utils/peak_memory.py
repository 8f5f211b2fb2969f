"""How much memory a computation needs at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def peak_mb(case: Callable[[], Any], device: str = "cpu") -> float:
    """Most MB (1e6 bytes) of tensors that ``case`` holds at once beyond those that exist before.

    From the record of every allocation, so the number is the same in every run. Scratch memory
    that a matrix library keeps for itself is not in it.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        case()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as run:
        case()
    if run.profiler is None or run.profiler.kineto_results is None:
        raise RuntimeError("this PyTorch was built without the profiler (kineto)")
    events = [e for e in run.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 1e6
