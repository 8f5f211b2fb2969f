"""Reports how many images the training data could not read."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class ReplacedImagesHook(Hook):
    """Warns at the end of an epoch, and of an iteration-based run, when images were replaced.

    It sums ``num_replaced`` of the training data set (see :class:`DistillImageDataset`) over
    worker processes and ranks, since the start of this process: a resumed run begins at 0. Data
    sets that do not count are left alone. The file names stand in the warnings of the data set.
    """

    def __init__(self) -> None:
        self._reported = 0

    def after_train_epoch(self, runner: Runner) -> None:
        """Log the number if it has grown since the last report."""
        count = find_num_replaced(runner.train_dataloader.dataset)
        if count is None:
            return
        everywhere = torch.tensor(count)
        all_reduce(everywhere)
        total = int(everywhere)
        if total > self._reported:
            runner.logger.warning(
                f"{total} times an image could not be used and a random other one took its place "
                f"({total - self._reported} since the last report); warnings above name the files"
            )
        self._reported = total


def find_num_replaced(dataset: Any) -> int | None:
    """``num_replaced`` of a data set, summed over joined ones; None where nothing counts."""
    if hasattr(dataset, "num_replaced"):
        return int(dataset.num_replaced)
    inside = [dataset.dataset] if hasattr(dataset, "dataset") else getattr(dataset, "datasets", ())
    counts = [count for part in inside if (count := find_num_replaced(part)) is not None]
    return sum(counts) if counts else None
