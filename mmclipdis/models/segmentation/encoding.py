"""Encoding the windows of several images in equal batches, and finishing one image's result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from mmclipdis.models.segmentation.resampling import Padding
from mmclipdis.models.segmentation.windows import Size, Windows, one_window, slide_windows


@dataclass(frozen=True)
class TestSettings:
    """``test_cfg`` of :class:`OpenVocabSegmentor`.

    Attributes:
        mode: ``'slide'``, or ``'whole'`` for one window as large as the image. A ``test_cfg``
            without it slides if it names a ``crop_size`` or ``stride``. With ``'whole'`` the two
            are ignored, so that a config can override ``mode`` alone.
        crop_size: window (height, width) in pixels.
        stride: step (y, x) in pixels.
        window_batch_size: windows, of one or of several images, that are encoded together.
        window_padding: what happens to a window side that is no multiple of the patch:
            ``'symmetric'`` zero padding (ClearCLIP) or ``'floor'``, which leaves the remainder to
            the patch convolution to cut off and stretches the map (SCLIP).
        class_chunk: queries that are at full size at the same time.
        return_probs: also return class probabilities (C, H, W) as ``seg_logits``.
    """

    __test__ = False  # not a test class, whatever pytest thinks of the name

    mode: Literal["slide", "whole"] = "whole"
    crop_size: Size | None = None
    stride: Size | None = None
    window_batch_size: int = 16
    window_padding: Literal["symmetric", "floor"] = "symmetric"
    class_chunk: int = 32
    return_probs: bool = False

    @classmethod
    def from_cfg(cls, cfg: Mapping[str, Any] | None, patch_size: Size) -> TestSettings:
        """Read and check a ``test_cfg``.

        Raises:
            ValueError: unknown keys or values, missing sizes, a crop smaller than a patch.
        """
        cfg = dict(cfg or {})
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(cfg) - set(known))
        if unknown:
            raise ValueError(f"test_cfg has unknown keys {unknown}; known are {known}")
        if cfg.get("mode") is None:
            cfg["mode"] = "slide" if cfg.get("crop_size") or cfg.get("stride") else "whole"
        settings = cls(**cfg)
        for name, allowed in _CHOICES.items():
            if getattr(settings, name) not in allowed:
                value = getattr(settings, name)
                raise ValueError(f"test_cfg.{name} must be one of {allowed}, got {value!r}")
        for name in ("window_batch_size", "class_chunk"):
            if getattr(settings, name) < 1:
                raise ValueError(f"test_cfg.{name} must be at least 1")
        if settings.mode == "slide":
            if settings.crop_size is None or settings.stride is None:
                raise ValueError("test_cfg.mode='slide' needs crop_size and stride in pixels")
            crop = slide_windows(settings.crop_size, settings.crop_size, settings.stride).crop
            if crop[0] < patch_size[0] or crop[1] < patch_size[1]:
                raise ValueError(
                    f"test_cfg.crop_size {crop} is smaller than a patch of {patch_size} pixels: "
                    "choose a larger one, best a multiple of the patch"
                )
        return settings

    def windows(self, size: Size) -> Windows:
        """Windows over an image of ``size`` pixels."""
        if self.mode == "whole" or self.crop_size is None or self.stride is None:
            return one_window(size)
        return slide_windows(size, self.crop_size, self.stride)

    def padding(self, crop: Size, patch_size: Size) -> Padding:
        """Pixels (left, right, top, bottom) to add to a window of ``crop`` pixels.

        Raises:
            ValueError: ``'floor'`` leaves no patch of it.
        """
        if self.window_padding == "floor":
            if crop[0] < patch_size[0] or crop[1] < patch_size[1]:
                raise ValueError(
                    f"a window of {crop} pixels is smaller than a patch of {patch_size}; resize "
                    "the image to a larger size or use window_padding='symmetric'"
                )
            return 0, 0, 0, 0
        return symmetric_padding(crop, patch_size)


_CHOICES = {"mode": ("slide", "whole"), "window_padding": ("symmetric", "floor")}


def symmetric_padding(size: Size, multiple: Size) -> Padding:
    """Padding (left, right, top, bottom) to a multiple; of an odd amount the rest goes right/below.

    307 rows with patch 16: 6 above, 7 below.
    """
    vertical, horizontal = -size[0] % multiple[0], -size[1] % multiple[1]
    left, top = horizontal // 2, vertical // 2
    return left, horizontal - left, top, vertical - top


def encode_windows(
    images: Sequence[Tensor],
    layouts: Sequence[Windows],
    paddings: Sequence[Padding],
    encode: Callable[[Tensor], Tensor],
    batch_size: int,
) -> list[Tensor]:
    """Encode the windows of all images, ``batch_size`` at a time, whatever image they are of.

    Windows of one size share batches; windows are cut when their batch is due.

    Args:
        images: each (C, H, W), sizes may differ.
        layouts: windows of each image.
        paddings: zeros put around the windows of each image.
        encode: (b, C, h, w) -> (b, K, gh, gw).
        batch_size: windows encoded together.

    Returns:
        For each image the maps of its windows (n, K, gh, gw).
    """
    groups: dict[tuple[Size, Padding], list[tuple[int, int]]] = {}
    for i, (layout, padding) in enumerate(zip(layouts, paddings, strict=True)):
        members = groups.setdefault((layout.crop, padding), [])
        members.extend((i, w) for w in range(len(layout)))
    maps: list[list[Tensor]] = [[] for _ in images]
    for (crop, padding), members in groups.items():
        for start in range(0, len(members), batch_size):
            batch = members[start : start + batch_size]
            crops = []
            for i, w in batch:
                y, x = layouts[i].starts[w]
                crops.append(images[i][:, y : y + crop[0], x : x + crop[1]])
            # Zero after normalisation is the mean colour.
            encoded = encode(F.pad(torch.stack(crops), padding))
            for (i, _), result in zip(batch, encoded, strict=True):
                maps[i].append(result)  # members of an image come in order
    return [torch.stack(parts) for parts in maps]


def image_content(image: Tensor, meta: Mapping[str, Any]) -> Tensor:
    """Image (C, H, W) without the padding of its batch, so that it cannot influence the result.

    Raises:
        ValueError: nothing is left.
    """
    left, right, top, bottom = meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0)))
    height, width = image.shape[-2:]
    content = image[..., top : height - bottom, left : width - right]
    if 0 in content.shape:
        name = meta.get("img_path", "the image")
        raise ValueError(f"{name}: image has no pixels (size {tuple(content.shape[-2:])})")
    return content


def photo_size(meta: Mapping[str, Any], image: Tensor) -> Size:
    """Size (height, width) of the photo before the test pipeline; of ``image`` if not recorded."""
    shape = meta.get("ori_shape", image.shape[-2:])
    return int(shape[0]), int(shape[1])


def unflip(result: Tensor, meta: Mapping[str, Any]) -> Tensor:
    """Undo the flip of test-time augmentation on (..., H, W).

    Raises:
        ValueError: unknown direction.
    """
    if not meta.get("flip"):
        return result
    axes = {"horizontal": (-1,), "vertical": (-2,), "diagonal": (-1, -2)}
    direction = meta.get("flip_direction")
    if direction not in axes:
        raise ValueError(f"flip_direction must be one of {sorted(axes)}, got {direction!r}")
    return result.flip(axes[direction])


def attach_result(
    sample: SegDataSample, labels: Tensor, scores: Tensor | None = None
) -> SegDataSample:
    """Store labels (H, W), and scores (C, H, W) if given, as mmseg's ``postprocess_result`` does.

    ``pred_sem_seg`` is int64 (1, H, W); ``seg_logits`` only exists when scores were asked for.
    """
    meta = sample.metainfo
    sample.set_data({"pred_sem_seg": PixelData(data=unflip(labels, meta).unsqueeze(0))})
    if scores is not None:
        sample.set_data({"seg_logits": PixelData(data=unflip(scores, meta))})
    return sample
