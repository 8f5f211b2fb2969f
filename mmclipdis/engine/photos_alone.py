"""Test batches of photos of several sizes under models of mmseg, which take one size a batch."""

from __future__ import annotations

from typing import Any

from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from torch import nn


def take_photos_alone(runner: Any) -> None:
    """Validate and test one photo at a time where mmseg's own ``SegDataPreProcessor`` is in use.

    It refuses a batch of several sizes in an assertion, and results are the same. Segmentors of
    this package take any sizes and keep their batches.
    """
    model: Any = getattr(runner, "model", None)
    model = model.module if is_model_wrapper(model) else model
    if not isinstance(model, nn.Module) or not any(map(_is_mmsegs, model.modules())):
        return
    for name in ("val", "test"):
        loader = getattr(getattr(runner, f"_{name}_loop", None), "dataloader", None)
        sampler: Any = getattr(loader, "batch_sampler", None)
        if getattr(sampler, "batch_size", 1) > 1:
            print_log(
                f"{name}_dataloader.batch_size={sampler.batch_size}: mmseg's SegDataPreProcessor "
                "takes photos of one size a batch; they are taken one at a time",
                logger="current",
            )
            sampler.batch_size = 1


def _is_mmsegs(part: Any) -> bool:
    kind = type(part)
    return kind.__name__ == "SegDataPreProcessor" and kind.__module__.startswith("mmseg.")
