"""Crops of what DCLIP's segmentation finds in an image, for a second look by CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor
from torchvision.ops import masks_to_boxes

from mmclipdis.clip.text.templates import Templates
from mmclipdis.models.projectors import Projectors, load_projectors
from mmclipdis.utils.interpolation import antialiased

#: How the logits of an image and those of its segments become one.
REDUCTIONS = ("max", "mean")


class DCLIPSegments(BaseModule):
    """The segments of an image: what its labels by DCLIP's projectors say, cut out.

    Every place gets the class whose projected text is most like it; a segment is all pixels of a
    class, if they are enough.

    Args:
        projector: Checkpoint of a DCLIP run, or the module.
        in_dim: Channels of the encoder.
        arch: The CLIP in use.
        templates: Prompts of the classes, as in DCLIP's segmentation.
        size: Side, or (height, width), in pixels at which the image is segmented; None as it comes.
        crop_size: The same of the crops that CLIP looks at; None for that of the whole image.
        min_area: Share of the image below which a segment is left out.
        reduce: ``'max'``: the largest logit of image and segments. ``'mean'``: the mean of that of
            the image and the largest one of the segments.
        grey: Give what is around a segment within its box the mean colour of CLIP's images.
        any_arch: Take projectors of any CLIP of this width.

    Raises:
        FileNotFoundError, ValueError: as ``load_projectors``, or for an option out of range.

    Source: DCLIP (arXiv 2502.02977), Table 5, which says neither how crops are cut nor how scores
    are combined.
    """

    def __init__(
        self,
        projector: str | Path | Projectors,
        in_dim: int,
        arch: Any = None,
        templates: Templates = "single",
        size: int | Sequence[int] | None = None,
        crop_size: int | Sequence[int] | None = None,
        min_area: float = 0.01,
        reduce: str = "max",
        grey: bool = False,
        any_arch: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(projector, Projectors):
            projector = load_projectors(projector, in_dim, arch, any_arch)
        if reduce not in REDUCTIONS:
            raise ValueError(f"reduce must be one of {', '.join(REDUCTIONS)}, got {reduce!r}")
        if not 0 <= min_area <= 1:
            raise ValueError(f"min_area is a share of the image in [0, 1], got {min_area}")
        self.projector = projector
        self.any_arch = any_arch
        self.templates = templates
        self.size = side_lengths("segments.size", size)
        self.crop_size = side_lengths("segments.crop_size", crop_size)
        self.min_area = min_area
        self.reduce = reduce
        self.grey = grey

    def labels(self, maps: Tensor, text: Tensor, size: Sequence[int]) -> Tensor:
        """Class of every pixel, int64 (B, H, W).

        Args:
            maps: CLIP's dense map (B, D, h, w).
            text: CLIP's embeddings (N, D) of the classes.
            size: (H, W).
        """
        with torch.autocast(maps.device.type, enabled=False):
            dtype = self.projector.dtype
            tokens, classes = self.projector(maps.to(dtype).movedim(1, -1), text.to(dtype))
            cosines = F.normalize(tokens, dim=-1) @ F.normalize(classes, dim=-1).T  # (B, h, w, N)
            # an image at a time: N maps at full size are the largest tensor here
            found = [resize(one.movedim(-1, 0)[None], size).argmax(1) for one in cosines]
        return torch.cat(found)

    def crops(self, image: Tensor, labels: Tensor) -> list[Tensor]:
        """The boxes (3, h, w) of the segments of an image, of different sizes.

        Args:
            image: (3, H, W), normalised.
            labels: int64 (H, W).
        """
        classes, counts = labels.unique(return_counts=True)
        classes = classes[counts >= self.min_area * labels.numel()]
        if not len(classes):
            return []
        masks = labels == classes[:, None, None]  # (K, H, W)
        cut = []
        for mask, box in zip(masks, masks_to_boxes(masks).long().tolist(), strict=True):
            rows, columns = slice(box[1], box[3] + 1), slice(box[0], box[2] + 1)
            crop = image[:, rows, columns]
            # the mean of CLIP's images is 0 once they are normalised
            cut.append(crop * mask[rows, columns] if self.grey else crop)
        return cut

    def combine(self, whole: Tensor, parts: Tensor) -> Tensor:
        """Logits (N,) of an image, of those of the whole (N,) and of its K segments (K, N)."""
        if not len(parts):
            return whole
        best = parts.amax(0)
        return torch.maximum(whole, best) if self.reduce == "max" else (whole + best) / 2


def side_lengths(name: str, value: int | Sequence[int] | None) -> tuple[int, int] | None:
    """(height, width) in pixels of a side, or of both; None stays None.

    Raises:
        ValueError: for anything else.
    """
    if value is None:
        return None
    sides = (value, value) if isinstance(value, int) else tuple(value)
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"{name} is a side or (height, width) in pixels, got {value!r}")
    return int(sides[0]), int(sides[1])


def resize(images: Tensor, size: Sequence[int] | None, mode: str = "bilinear") -> Tensor:
    """Images or maps (B, C, h, w) at another size, half-pixel centres; bicubic is antialiased."""
    if size is None or tuple(images.shape[-2:]) == tuple(size):
        return images
    if mode == "bicubic":
        return antialiased(images, size, mode)
    return F.interpolate(images, tuple(size), mode=mode, align_corners=False)
