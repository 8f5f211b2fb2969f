"""A hook that stops training at the first loss that is not a number."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


class NonFiniteLossError(RuntimeError):
    """A loss became NaN or infinite."""


@HOOKS.register_module()
class NonFiniteGuard(Hook):
    """Stop when a loss is NaN or infinite, before a checkpoint of the broken weights is written.

    The error names the iteration, each such loss and the image files of the batch. It comes in the
    iteration itself, and before the checkpoint hook's turn, so the last checkpoint is a good one.
    """

    priority = "NORMAL"

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Check every output whose name contains ``loss``.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite.
        """
        broken = {
            name: value
            for name, value in _losses(outputs or {}).items()
            if not math.isfinite(value)
        }
        if broken:
            losses = ", ".join(f"{name} = {value}" for name, value in broken.items())
            files = ", ".join(dict.fromkeys(image_files(data_batch))) or "unknown"
            last = runner.message_hub.get_info("last_ckpt") or "none was saved yet"
            raise NonFiniteLossError(
                f"iteration {runner.iter + 1}: {losses}; files of the batch: {files}; last good "
                f"checkpoint: {last}. Lower the learning rate, clip gradients, or train without "
                "--amp."
            )


def _losses(outputs: dict[str, Any]) -> dict[str, float]:
    return {
        name: float(value.detach().sum()) if isinstance(value, torch.Tensor) else float(value)
        for name, value in outputs.items()
        if "loss" in name
    }


def image_files(batch: Any) -> Iterator[str]:
    """Yield the image paths of a batch in mmengine's layout, in order."""
    samples = batch.get("data_samples", ()) if isinstance(batch, dict) else batch
    if not isinstance(samples, Sequence) or isinstance(samples, str):
        return
    for sample in samples:
        if isinstance(sample, dict):
            sample = sample.get("data_samples")
        path = getattr(sample, "img_path", None)
        if path:
            yield str(path)
