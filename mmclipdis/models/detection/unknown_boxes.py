"""No detector learns from boxes of unknown class unless it says that it can.

Stock detectors take the label -1 for background, for their last class, or break far from the cause.
``BaseDetector.forward`` is looked after, since any of them can be given such data.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from mmdet.models.detectors import BaseDetector


def check_unknown_boxes(detector: Any, samples: Any) -> None:
    """Refuse labels below 0 for a detector without ``takes_pseudo_boxes = True``.

    Args:
        detector: That is to learn from the samples.
        samples: List of data samples, or a dict of lists; anything else is not looked at.

    Raises:
        ValueError: it takes none; or the labels are still those of a pipeline, with the weights in
            them.
    """
    groups = samples.values() if isinstance(samples, Mapping) else [samples]
    for group in groups:
        for sample in group if isinstance(group, (list, tuple)) else ():
            boxes = getattr(sample, "gt_instances", None)
            if boxes is None or "labels" not in boxes:
                continue
            takes = getattr(detector, "takes_pseudo_boxes", False)
            if (takes and "weights" in boxes) or not bool((boxes.labels < 0).any()):
                continue
            name = type(detector).__name__
            if takes:
                raise ValueError(
                    f"{name}: boxes have labels below 0 and no weights: pack pseudo boxes with "
                    "dict(type='PackDetInputs') of the config, not with mmdet's class itself"
                )
            raise ValueError(
                f"{name} learns named classes only, and the training data have boxes of unknown "
                "class (label -1): leave pseudo_boxes out of train_dataloader.dataset, or train "
                "OVDQUO"
            )


def with_check(forward: Callable[..., Any]) -> Callable[..., Any]:
    """``BaseDetector.forward`` that checks what is learned from."""

    @functools.wraps(forward)
    def checked(self: Any, inputs: Any, data_samples: Any = None, mode: str = "tensor") -> Any:
        if mode == "loss":
            check_unknown_boxes(self, data_samples)
        return forward(self, inputs, data_samples, mode)

    checked.checks_unknown_boxes = True  # type: ignore[attr-defined]
    return checked


def install_unknown_box_check() -> None:
    """Put it in the place of mmdet's, once."""
    if not getattr(BaseDetector.forward, "checks_unknown_boxes", False):
        BaseDetector.forward = with_check(BaseDetector.forward)
