"""The views of an image that CAT-Seg is tested on, and how their scores go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mmclipdis.models.segmentation.prediction import WindowScores, resize
from mmclipdis.models.segmentation.windows import (
    Size,
    Windows,
    cut,
    one_window,
    pair,
    slide_windows,
)

Mode = Literal["whole", "slide", "slide_with_global"]
MODES = get_args(Mode)


@dataclass(frozen=True)
class CATSegTestSettings:
    """``test_cfg`` of :class:`CATSeg`. The defaults of the sliding modes are the published ones.

    Attributes:
        mode: ``'whole'``, one view; ``'slide'``, windows over the image resized to ``size``;
            ``'slide_with_global'``, those and the whole image as one more view, half and half
            (the reported numbers).
        val_mode: Mode for validation during training (``val_step``); None for ``mode``. The
            released code validates on whole images and reports sliding windows.
        size: Size (height, width) in pixels that the image is resized to, ignoring its aspect,
            before windows are cut.
        crop_size: Window (height, width) in pixels.
        stride: Step (y, x) in pixels; the released code's overlap of 0.333 of 384 gives 256.
        window_batch_size: Views, of one or of several images, that are encoded together.
        chunk_mb: Size of the largest fp32 maps between logits and labels, in MB (1e6 bytes): as
            many classes as fit in, at least one, are at full size at the same time. Labels do not
            depend on it.
        return_probs: Also return class probabilities (T, H, W) as ``seg_logits``.
    """

    mode: Mode = "whole"
    val_mode: Mode | None = None
    size: Size = (640, 640)
    crop_size: Size = (384, 384)
    stride: Size = (256, 256)
    window_batch_size: int = 5
    chunk_mb: float = 64.0
    return_probs: bool = False

    @classmethod
    def from_cfg(cls, cfg: Mapping[str, Any] | None) -> CATSegTestSettings:
        """Read and check a ``test_cfg``.

        Raises:
            ValueError: Unknown keys or values.
        """
        cfg = dict(cfg or {})
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(cfg) - set(known))
        if unknown:
            raise ValueError(f"test_cfg has unknown keys {unknown}; known are {known}")
        for name in ("size", "crop_size", "stride"):
            if name in cfg:
                cfg[name] = pair(cfg[name], f"test_cfg.{name}")
        settings = cls(**cfg)
        for name in ("mode", "val_mode"):
            value = getattr(settings, name)
            if value not in MODES and not (name == "val_mode" and value is None):
                raise ValueError(f"test_cfg.{name} must be one of {MODES}, got {value!r}")
        views, chunk = settings.window_batch_size, settings.chunk_mb
        if not isinstance(views, int) or views < 1:
            raise ValueError(f"test_cfg.window_batch_size must be an int >= 1, got {views!r}")
        if not isinstance(chunk, (int, float)) or not chunk > 0:
            raise ValueError(f"test_cfg.chunk_mb must be a positive number of MB, got {chunk!r}")
        slide_windows(settings.size, settings.crop_size, settings.stride)
        return settings


@dataclass(frozen=True)
class Views:
    """Views (3, h, w) of one image; with ``has_overview`` the last is the whole image.

    ``windows`` is None when the only view is the whole image.
    """

    views: list[Tensor]
    windows: Windows | None
    has_overview: bool = False

    def scores(self, logits: Tensor) -> WindowScores:
        """Attach logits ``(views, T, h, w)``.

        The scores of a single whole view are activated at their own resolution, as in the released
        code; those of windows after they have been resized to the window.
        """
        if self.windows is None:
            return WindowScores(logits, one_window((logits.shape[-2], logits.shape[-1])))
        if not self.has_overview:
            return WindowScores(logits, self.windows)
        return WindowScores(logits[:-1], self.windows, overview=logits[-1])


def views_of(image: Tensor, settings: CATSegTestSettings) -> Views:
    """Cut an image.

    Windows come from the image resized to ``settings.size``, the global view from the image
    itself, resized to the size of a window. (The released code resizes the latter once more, to
    the size of its encoder; so does the caller.)

    Args:
        image: Normalised image ``(3, H, W)`` of any size.
        settings: Test settings.
    """
    if settings.mode == "whole":
        return Views([image], None)
    windows = slide_windows(settings.size, settings.crop_size, settings.stride)
    views = list(torch.unbind(cut(resize(image, settings.size), windows)))
    if settings.mode == "slide":
        return Views(views, windows)
    return Views([*views, resize(image, windows.crop)], windows, has_overview=True)
