"""``test_cfg``: how an image is cut, encoded in batches and labelled within a budget of memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, ClassVar, TypeVar

from mmclipdis.models.segmentation.prediction import WindowScores, queries_within
from mmclipdis.models.segmentation.windows import (
    Padding,
    Size,
    Windows,
    one_window,
    pair,
    slide_windows,
    symmetric_padding,
)

Settings = TypeVar("Settings", bound="TestSettings")


@dataclass(frozen=True)
class TestSettings:
    """What every segmentor here reads from its ``test_cfg``; a method adds fields of its own.

    Attributes:
        mode: ``'slide'``, or ``'whole'`` for one window as large as the image. A ``test_cfg``
            without it slides if it names a ``crop_size`` or ``stride``. With ``'whole'`` the two
            are ignored, so that a config can override ``mode`` alone.
        crop_size: Window (height, width) in pixels.
        stride: Step (y, x) in pixels.
        window_batch_size: Windows, of one or of several images, that are encoded together.
        chunk_mb: Size of the largest fp32 maps between logits and labels, in MB (1e6 bytes): as
            many queries as fit in, at least one, are at full size at the same time; a third as many
            where refiners mend their scores. Labels do not depend on it.
        return_probs: Also return class probabilities (C, H, W) as ``seg_logits``.
    """

    __test__ = False  # not a test class, whatever pytest thinks of the name

    #: Values that a field may have.
    CHOICES: ClassVar[Mapping[str, Sequence[Any]]] = {"mode": ("slide", "whole")}
    #: Fields that are a size (height, width) in pixels, or one number for both.
    SIZES: ClassVar[Sequence[str]] = ("crop_size", "stride")
    #: Fields that count something.
    COUNTS: ClassVar[Sequence[str]] = ("window_batch_size",)

    mode: str = "whole"
    crop_size: Size | None = None
    stride: Size | None = None
    window_batch_size: int = 16
    chunk_mb: float = 64.0
    return_probs: bool = False

    @classmethod
    def from_cfg(cls: type[Settings], cfg: Mapping[str, Any] | None) -> Settings:
        """Read and check a ``test_cfg``.

        Raises:
            ValueError: unknown keys or values, or missing sizes.
        """
        cfg = dict(cfg or {})
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(cfg) - set(known))
        if unknown:
            raise ValueError(f"test_cfg has unknown keys {unknown}; known are {known}")
        for name in cls.SIZES:
            if cfg.get(name) is not None:
                cfg[name] = pair(cfg[name], f"test_cfg.{name}")
        if cfg.get("mode") is None:
            cfg["mode"] = "slide" if cfg.get("crop_size") or cfg.get("stride") else "whole"
        settings = cls(**cfg)
        settings._check()
        return settings

    def _check(self) -> None:
        for name, allowed in self.CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"test_cfg.{name} must be one of {allowed}, got {value!r}")
        for name in self.COUNTS:
            value = getattr(self, name)
            if not _is_count(value):
                raise ValueError(f"test_cfg.{name} must be an int >= 1, got {value!r}")
        if not isinstance(self.chunk_mb, Real) or not self.chunk_mb > 0:
            raise ValueError(
                f"test_cfg.chunk_mb must be a positive number of MB, got {self.chunk_mb!r}"
            )
        if not isinstance(self.return_probs, bool):
            raise ValueError(
                f"test_cfg.return_probs must be True or False, got {self.return_probs!r}"
            )
        if self.mode != "whole":
            if self.crop_size is None or self.stride is None:
                raise ValueError(
                    f"test_cfg.mode={self.mode!r} needs crop_size and stride in pixels"
                )
            slide_windows(self.crop_size, self.crop_size, self.stride)  # the stride fits the crop

    def windows(self, size: Size) -> Windows:
        """Windows over an image of ``size`` pixels."""
        if self.mode == "whole" or self.crop_size is None or self.stride is None:
            return one_window(size)
        return slide_windows(size, self.crop_size, self.stride)

    def queries_at_once(self, scores: WindowScores, out_size: Size, refined: bool = False) -> int:
        """How many queries are at full size at the same time, on the way to ``out_size``."""
        return queries_within(self.chunk_mb, scores, out_size, refined)


@dataclass(frozen=True)
class OpenVocabTestSettings(TestSettings):
    """``test_cfg`` of :class:`OpenVocabSegmentor`; first the fields of :class:`TestSettings`.

    Attributes:
        window_padding: what happens to a window side that is no multiple of the patch:
            ``'symmetric'`` zero padding (ClearCLIP) or ``'floor'``, which leaves the remainder to
            the patch convolution to cut off and stretches the map (SCLIP).
        stitch: what of the windows is put together, as a mean where they overlap: their
            ``'scores'``; or the ``'values'`` of CLIP's last block, which one affinity of the whole
            image then mixes (OV-Stitcher); or the ``'tokens'`` that the affinity of each window has
            mixed, with the mean cosine of all windows of an image, and that a ``token_mixer`` may
            mix again over the whole image (Trident). Only ``'scores'`` are put together at the
            size of windows; maps of ``'tokens'`` go to the photo in one step.
        class_chunk: queries that are at full size at the same time; None: as ``chunk_mb`` allows.
    """

    CHOICES = {
        **TestSettings.CHOICES,
        "window_padding": ("symmetric", "floor"),
        "stitch": ("scores", "values", "tokens"),
    }

    window_padding: str = "symmetric"
    stitch: str = "scores"
    class_chunk: int | None = None

    def _check(self) -> None:
        super()._check()
        if self.class_chunk is not None and not _is_count(self.class_chunk):
            raise ValueError(
                f"test_cfg.class_chunk must be an int >= 1 or None, got {self.class_chunk!r}"
            )

    def check_patch(self, patch: Size) -> None:
        """Refuse windows smaller than a ``patch`` of (height, width) pixels.

        Raises:
            ValueError: for one.
        """
        crop = self.crop_size
        if self.mode == "slide" and crop and (crop[0] < patch[0] or crop[1] < patch[1]):
            raise ValueError(
                f"test_cfg.crop_size {crop} is smaller than a patch of {patch} pixels: choose a "
                "larger one, best a multiple of the patch"
            )

    def padding(self, crop: Size, patch: Size) -> Padding:
        """Pixels (left, right, top, bottom) to add to a window of ``crop`` pixels.

        Raises:
            ValueError: ``'floor'`` leaves no patch of it.
        """
        if self.window_padding == "symmetric":
            return symmetric_padding(crop, patch)
        if crop[0] < patch[0] or crop[1] < patch[1]:
            raise ValueError(
                f"a window of {crop} pixels is smaller than a patch of {patch}; resize the image "
                "to a larger size or use window_padding='symmetric'"
            )
        return 0, 0, 0, 0

    def queries_at_once(self, scores: WindowScores, out_size: Size, refined: bool = False) -> int:
        """See :meth:`TestSettings.queries_at_once`; ``class_chunk`` goes first."""
        return self.class_chunk or super().queries_at_once(scores, out_size, refined)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
