"""The views of an image that CAT-Seg is tested on, and how their scores go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from mmclipdis.models.segmentation.prediction import WindowScores, resize
from mmclipdis.models.segmentation.settings import TestSettings
from mmclipdis.models.segmentation.windows import Size, Windows, one_window

MODES = ("whole", "slide", "slide_with_global")


@dataclass(frozen=True)
class CATSegTestSettings(TestSettings):
    """``test_cfg`` of :class:`CATSeg`: fields of :class:`TestSettings`, and those of its views.

    The defaults of the sliding modes are the published ones (the released code's overlap of 0.333
    of 384 gives a stride of 256).

    Attributes:
        mode: ``'whole'``, one view; ``'slide'``, windows over the image resized to ``size``;
            ``'slide_with_global'``, those and the whole image as one more view, half and half
            (the reported numbers).
        val_mode: Mode for validation during training (``val_step``); None for ``mode``. The
            released code validates on whole images and reports sliding windows.
        size: Size (height, width) in pixels that the image is resized to, ignoring its aspect,
            before windows are cut.
    """

    CHOICES = {"mode": MODES, "val_mode": (*MODES, None)}
    SIZES = ("size", "crop_size", "stride")

    crop_size: Size = (384, 384)
    stride: Size = (256, 256)
    window_batch_size: int = 5
    size: Size = (640, 640)
    val_mode: str | None = None


@dataclass(frozen=True)
class Views:
    """What of an image is looked at: pictures, each of them cut into windows.

    Attributes:
        pictures: ``(3, h, w)``: the one that windows are cut from; with ``has_overview`` also the
            whole image squeezed into one window.
        layouts: Windows of each picture.
        is_whole: The only view is the whole image.
    """

    pictures: Sequence[Tensor]
    layouts: Sequence[Windows]
    is_whole: bool = False

    def scores(self, maps: Sequence[Tensor]) -> WindowScores:
        """Attach logits ``(n, T, h, w)`` of the n windows of each picture.

        The scores of a single whole view are activated at their own resolution, as in the released
        code; those of windows after they have been resized to the window.
        """
        windows, *overview = maps
        if self.is_whole:
            return WindowScores(windows, one_window((windows.shape[-2], windows.shape[-1])))
        return WindowScores(windows, self.layouts[0], overview=overview[0][0] if overview else None)


def views_of(image: Tensor, settings: CATSegTestSettings, clip_size: Size) -> Views:
    """Cut an image.

    Windows come from the image resized to ``settings.size``, the global view from the image
    itself, resized to the size of a window. (The released code resizes the latter once more, to
    the size of its encoder; so does :meth:`CATSeg.extract_feat`.)

    Args:
        image: Normalised image ``(3, H, W)`` of any size.
        settings: Test settings.
        clip_size: Size (height, width) in pixels that the encoder sees.
    """
    whole = settings.mode == "whole"
    picture = resize(image, clip_size if whole else settings.size)
    windows = settings.windows((picture.shape[-2], picture.shape[-1]))
    if settings.mode != "slide_with_global":
        return Views([picture], [windows], is_whole=whole)
    return Views([picture, resize(image, windows.crop)], [windows, one_window(windows.crop)])
