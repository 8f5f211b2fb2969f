"""Watches during training how much the class features have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.hooks import Hook, LoggerHook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from mmclipdis.clip.text.similarity import mean_off_diagonal
from mmclipdis.engine.random_state import get_random_state, set_random_state


@HOOKS.register_module()
class MFIMonitorHook(Hook):
    """Log how alike the class features are while they are trained (DCLIP's "MFI").

    The scalars go to the message hub, and from there to the log and all visualisation backends:

    - ``train/mean_cosine``: mean raw cosine between the positive features of different classes.
      CLIP has about 0.77 (VOC) and 0.69 (COCO) there. A single class has none.
    - ``train/posneg_cosine``: mean raw cosine of a class's positive with its own negative feature.

    They are measured with the model in evaluation mode, as it is used later, after the step of the
    optimiser. Neither its mode, its buffers nor the random generators change.

    Args:
        interval: Iterations (within an epoch, in a loop of epochs) from one measurement to the
            next. Where ``LoggerHook`` writes a line another one is made, so that a line never
            shows an old value; 50 with lines every 10 iterations measures every 10.

    Raises:
        ValueError: ``interval`` below 1.
        TypeError: At the start of the training, a model without ``class_features()``, which
            returns (2N, D): the negative features of N classes, then the positive ones.

    Source: DCLIP (arXiv 2502.02977), figs. 7 and 11.
    """

    priority = "NORMAL"  # before LoggerHook, after the optimiser's step

    def __init__(self, interval: int = 50) -> None:
        if interval < 1:
            raise ValueError(f"MFIMonitorHook.interval must be at least 1, got {interval}")
        self.interval = interval

    def before_train(self, runner: Runner) -> None:
        """Check that there is something to watch."""
        model = _unwrapped(runner.model)
        if not callable(getattr(model, "class_features", None)):
            raise TypeError(
                f"MFIMonitorHook watches class_features() of the model, which "
                f"{type(model).__name__} does not have; train a DCLIP or remove the hook."
            )

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Measure when it is time, or when the log is about to be written."""
        if self.every_n_inner_iters(batch_idx, self.interval) or _line_follows(runner, batch_idx):
            for name, value in measure(_unwrapped(runner.model)).items():
                runner.message_hub.update_scalar(f"train/{name}", value)


def measure(model: Any) -> dict[str, float]:
    """``mean_cosine`` and ``posneg_cosine`` of a model's ``class_features()``.

    Of a single class there is no ``mean_cosine``.

    Raises:
        ValueError: An odd number of rows, or none.
    """
    with _in_evaluation(model), torch.no_grad():
        features = model.class_features().float()
    if len(features) % 2 or not len(features):
        raise ValueError(
            f"class_features() of {type(model).__name__} has {len(features)} rows; expected the "
            "negative features of all classes and then as many positive ones."
        )
    negative, positive = features.chunk(2)
    between = {"mean_cosine": float(mean_off_diagonal(positive))} if len(positive) > 1 else {}
    return {**between, "posneg_cosine": float(F.cosine_similarity(negative, positive).mean())}


@contextmanager
def _in_evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; each part gets its own mode back, generators their state."""
    modes = {module: module.training for module in model.modules()}
    state = get_random_state()
    try:
        for module in modes:  # not by train(), which models override
            module.training = False
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        set_random_state(state)


def _line_follows(runner: Runner, batch_idx: int) -> bool:
    """Whether a ``LoggerHook`` may write a line after this iteration."""
    return any(
        hook.every_n_inner_iters(batch_idx, hook.interval)
        or hook.end_of_epoch(runner.train_dataloader, batch_idx)
        for hook in runner.hooks
        if isinstance(hook, LoggerHook)
    )


def _unwrapped(model: Any) -> Any:
    return model.module if is_model_wrapper(model) else model
