"""One affinity over an image whose windows CLIP has seen one by one (training_free_2 spec 1.4).

Windows keep CLIP at the size it was trained for, but what they say of a thing that two of them show
differs. With ``test_cfg.stitch='values'`` not their scores are put together but the values of
CLIP's last block, on the grid of patches of the image, and so are the tokens of the vision model; a
single matrix then lets every patch look at the whole image (OV-Stitcher, CVPR 2026).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mmclipdis.clip.towers.affinity import Guide, merged
from mmclipdis.clip.towers.last_block import check_stitchable
from mmclipdis.clip.towers.regions import OUTSIDE, resize_nearest
from mmclipdis.models.segmentation.encoding import encode_each
from mmclipdis.models.segmentation.windows import (
    Padding,
    Size,
    Windows,
    add_window,
    mean_of_windows,
)


def stitched_maps(
    backbone: Any,
    images: Sequence[Tensor],
    layouts: Sequence[Windows],
    batch_size: int,
    paddings: Sequence[Padding],
    masks: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Dense maps ``(1, E, gh, gw)`` of whole images, in the joint space.

    Args:
        backbone: ``CLIPViT`` whose readout is an affinity and nothing else.
        images: Each ``(3, H, W)``.
        layouts: Their windows.
        batch_size: Windows encoded together.
        paddings: Pixels around the windows of each image.
        masks: ``(H, W)`` int64 of each image, of any size, if the affinity has ``scope='masks'``.

    Raises:
        ValueError: windows that are no whole patches.
    """
    for layout, padding in zip(layouts, paddings, strict=True):
        check_whole_patches(layout, padding, backbone.pad_multiple)
    if getattr(backbone, "branches", None) is not None:
        return _branched_maps(backbone, images, layouts, batch_size, paddings, masks)
    found = []
    for encode in (backbone.values, backbone.guide_tokens):
        on_grid = Canvases(layouts, paddings)
        encode_each(images, layouts, encode, on_grid.add, batch_size, paddings)
        found.append(on_grid)
    values, tokens = found
    maps = []
    for i, (layout, padding) in enumerate(zip(layouts, paddings, strict=True)):
        guide = _guide(tokens.pop(i), layout, padding, None if masks is None else masks[i])
        maps.append(backbone.mixed_values(values.pop(i), guide))
    return maps


def _branched_maps(
    backbone: Any,
    images: Sequence[Tensor],
    layouts: Sequence[Windows],
    batch_size: int,
    paddings: Sequence[Padding],
    masks: Sequence[Tensor] | None,
) -> list[Tensor]:
    """:func:`stitched_maps` of a readout with branches (training_free_2 spec 5.1)."""
    found = Canvases(layouts, paddings)
    encode_each(images, layouts, backbone.window_guide, found.add, batch_size, paddings)
    grids = [found.grid(i) for i in range(len(images))]
    guides, regions = [], []
    for i, (layout, padding) in enumerate(zip(layouts, paddings, strict=True)):
        tokens = backbone.stitched_guide(found.pop(i))
        whole = _guide(tokens, layout, padding, masks[i] if masks else None)
        _, guide = merged(backbone.affinity, whole)
        guides.append(guide)
        if guide.regions is not None:
            regions.append(_in_photo(guide.regions[0], layout.size, padding))

    def encode(windows: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is not None:  # the padding is in no mask, as in the published code
            labels = labels.masked_fill(labels == OUTSIDE, 0)
        parts: Tensor = backbone.window_parts(windows, labels)
        return parts

    parts, copies = Canvases(layouts, paddings), Canvases(layouts, paddings)
    semantic, width = backbone.branches.semantic, backbone.width

    def take(i: int, number: int, part: Tensor) -> None:
        if semantic:
            copies.add(i, number, resize_nearest(part[-width:], grids[i]))
            part = part[:-width]
        parts.add(i, number, part)

    encode_each(images, layouts, encode, take, batch_size, paddings, regions or None)
    return [
        backbone.read_stitched(parts.pop(i), copies.pop(i) if semantic else None, guide)
        for i, guide in enumerate(guides)
    ]


class Canvases:
    """Maps of windows that come one by one, put together in patches: their mean where they overlap.

    What is in memory is one map an image, however many windows it has.

    Args:
        layouts: Windows of each image.
        paddings: Pixels around the windows of each image.
    """

    def __init__(self, layouts: Sequence[Windows], paddings: Sequence[Padding]) -> None:
        self._images = list(zip(layouts, paddings, strict=True))
        self._sums: dict[int, tuple[Windows, Tensor]] = {}

    def add(self, image: int, number: int, part: Tensor) -> None:
        """Add the map ``(K, h, w)`` of a window of an image."""
        if image not in self._sums:
            windows = in_patches(*self._images[image], part.shape[-2:])
            self._sums[image] = windows, part.new_zeros((len(part), *windows.size))
        windows, canvas = self._sums[image]
        add_window(canvas, part, windows, number)

    def grid(self, image: int) -> Size:
        """Rows and columns of the maps of its windows."""
        return self._sums[image][0].crop

    def pop(self, image: int) -> Tensor:
        """The map ``(1, K, H, W)`` of an image, which leaves its memory to whoever takes it."""
        windows, canvas = self._sums.pop(image)
        return mean_of_windows(canvas, windows)[None]


def _guide(tokens: Tensor, layout: Windows, padding: Padding, masks: Tensor | None) -> Guide:
    """Tokens ``(1, C, gh, gw)`` of an image and the masks ``(H, W)`` that they lie in."""
    if masks is None:
        return Guide(tokens)
    padded = F.pad(resize_nearest(masks[None], layout.size), padding, value=OUTSIDE)
    return Guide(tokens, resize_nearest(padded, (tokens.shape[-2], tokens.shape[-1])))


def _in_photo(regions: Tensor, size: Size, padding: Padding) -> Tensor:
    """Regions of the tokens of an image, at each of its pixels, from 0 on; none is ``OUTSIDE``."""
    (height, width), (left, right, top, bottom) = size, padding
    pixels = resize_nearest(regions, (height + top + bottom, width + left + right))
    pixels = pixels[top : top + height, left : left + width]
    pixels = pixels - pixels.amin().clamp(max=0)  # what is in no mask may have been -1
    return pixels + (pixels >= OUTSIDE)


def whole_patches(backbone: Any) -> Size:
    """Sides (height, width) in pixels that are whole patches of all that sees a window."""
    height, width = getattr(backbone, "pad_multiple", backbone.patch_size)
    return int(height), int(width)


def check_stitching(backbone: Any, head: Any, stitch: str) -> None:
    """Refuse a backbone or a head whose windows can be put together by their scores only.

    Raises:
        ValueError: naming what they would need; or the vision model has another last block than
            one that can be run on what was put together.
    """
    readout: Any = getattr(backbone, "readout", None)
    alone = getattr(readout, "attention", ()) == ("affinity",)
    # branches are summed behind the norm, which mixed tokens have yet to see
    branches = stitch == "tokens" and getattr(readout, "branches", None) is not None
    if not alone or readout.ffn or readout.residual != "none" or branches:
        raise ValueError(
            f"test_cfg.stitch={stitch!r} needs a backbone whose last block is read by an affinity "
            f"alone, such as readout='proxyclip'{', without branches' if branches else ''}; that "
            f"of {type(backbone).__name__} works window by window: "
            + ("choose stitch='values'" if branches else "leave stitch out")
        )
    if getattr(head, "needs_cls", False):
        raise ValueError(
            "score_norm='surgery' weights the scores of each window, and "
            f"test_cfg.stitch={stitch!r} puts windows together before there are any: leave stitch "
            "out, set redundant='empty', or leave score_norm out"
        )
    if getattr(backbone, "stitches_last_block", False):
        check_stitchable(backbone.vfm.model, backbone.vfm.name)


def in_patches(windows: Windows, padding: Padding, grid: Sequence[int]) -> Windows:
    """The same windows in patches, of which a padded window has ``grid`` rows and columns.

    A start that lies inside a patch is moved to where that begins, as in the published code: such a
    window is up to a patch off its place.
    """
    left, right, top, bottom = padding
    sides = [
        _axis(windows, axis, sum(more), count)
        for axis, more, count in zip((0, 1), ((top, bottom), (left, right)), grid, strict=True)
    ]
    (height, rows), (width, columns) = sides
    starts = tuple(zip(rows, columns, strict=True))
    return Windows((height, width), (int(grid[0]), int(grid[1])), starts)


def _axis(windows: Windows, axis: int, more: int, count: int) -> tuple[int, list[int]]:
    """Length and starts along an axis, in patches."""
    length = windows.crop[axis] + more
    # of a grid of any fineness: that of a vision model with a size of its own is no whole pixels
    starts = [start[axis] * count // length for start in windows.starts]
    return max(starts) + count, starts


def check_whole_patches(windows: Windows, padding: Padding, multiple: Size) -> None:
    """Refuse windows of no whole patches, and padding inside the image, between windows.

    Raises:
        ValueError: naming the size that fits.
    """
    left, right, top, bottom = padding
    for axis, more in ((0, top + bottom), (1, left + right)):
        if more and windows.crop[axis] < windows.size[axis]:
            raise ValueError(
                f"test_cfg.crop_size {windows.crop} is no whole number of patches, and windows "
                "that are stitched before the head need one: choose multiples of "
                f"{multiple[0]} x {multiple[1]} pixels"
            )
        if (windows.crop[axis] + more) % multiple[axis]:
            raise ValueError(
                f"a window of {windows.crop[0]} x {windows.crop[1]} pixels is no whole number of "
                "patches, and windows that are stitched before the head need one: choose "
                f"multiples of {multiple[0]} x {multiple[1]} pixels, or window_padding='symmetric'"
            )
