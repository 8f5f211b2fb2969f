"""What a test measured and what it cost: metrics, seconds and memory an image, parameters."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmclipdis.utils.whole_files import write_text

#: Images that are not timed where there are more: their time is that of starting.
WARM_UP = 1


@HOOKS.register_module()
class CostHook(Hook):
    """Write what a test measured, and what it cost, to a json file::

        {"metrics": {"mIoU": 38.1}, "images": 500, "seconds": 0.21, "device": "cpu",
         "memory": 1893.4, "memory_of": "process", "parameters": 149620736}

    ``images`` and ``seconds`` are of the main process. ``seconds`` is the mean over images, for the
    model and its metric, without reading the image; the first one is not counted. ``memory`` is in
    MB (1e6 bytes): on a GPU the most that PyTorch held during the test (``memory_of`` is
    ``"tensors"``), otherwise the most that the process ever held, code and data included
    (``"process"``). ``parameters`` counts those of the model, text tower and frozen parts included.

    Args:
        path: The json file, written when the metrics are there.
    """

    priority = "VERY_LOW"

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._began = 0.0
        self._times: list[tuple[int, float]] = []

    def before_test(self, runner: Runner) -> None:
        """Forget what loading the weights took."""
        self._times = []
        if _device(runner).type == "cuda":
            torch.cuda.reset_peak_memory_stats(_device(runner))

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Start the clock."""
        self._began = _now(runner)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Stop it."""
        self._times.append((len(outputs or ()), _now(runner) - self._began))

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the file."""
        if not is_main_process():
            return
        timed = self._times[WARM_UP:] or self._times
        images = sum(count for count, _ in timed)
        memory, of = peak_memory(_device(runner))
        found = {
            "metrics": {name: float(value) for name, value in (metrics or {}).items()},
            "images": sum(count for count, _ in self._times),
            "seconds": sum(seconds for _, seconds in timed) / max(images, 1),
            "device": str(_device(runner)),
            "memory": memory,
            "memory_of": of,
            "parameters": sum(parameter.numel() for parameter in runner.model.parameters()),
        }
        write_text(self.path, json.dumps(found, indent=2))


def peak_memory(device: torch.device) -> tuple[float, str]:
    """MB (1e6 bytes) that were held at most, and of what: ``"tensors"`` or ``"process"``."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6, "tensors"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, "process"


def _device(runner: Runner) -> torch.device:
    return next((p.device for p in runner.model.parameters()), torch.device("cpu"))


def _now(runner: Runner) -> float:
    """Seconds, when the GPU is done with what it was given."""
    if _device(runner).type == "cuda":
        torch.cuda.synchronize(_device(runner))
    return time.perf_counter()
