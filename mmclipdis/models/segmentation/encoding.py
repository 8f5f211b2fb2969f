"""Encoding the windows of several images in equal batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.clip.towers.regions import OUTSIDE, resize_nearest
from mmclipdis.models.segmentation.windows import NO_PADDING, Padding, Size, Windows


def encode_windows(
    images: Sequence[Tensor],
    layouts: Sequence[Windows],
    encode: Callable[..., Tensor],
    batch_size: int,
    paddings: Sequence[Padding] | None = None,
    masks: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """The maps of the windows of each image, ``(n, K, gh, gw)``; see :func:`encode_each`."""
    maps: dict[int, Tensor] = {}

    def keep(image: int, number: int, found: Tensor) -> None:
        if image not in maps:  # what is put together at the end would be in memory twice
            maps[image] = found.new_empty((len(layouts[image]), *found.shape))
        maps[image][number] = found

    encode_each(images, layouts, encode, keep, batch_size, paddings, masks)
    return [maps[image] for image in range(len(images))]


def encode_each(
    images: Sequence[Tensor],
    layouts: Sequence[Windows],
    encode: Callable[..., Tensor],
    take: Callable[[int, int, Tensor], None],
    batch_size: int,
    paddings: Sequence[Padding] | None = None,
    masks: Sequence[Tensor] | None = None,
) -> None:
    """Encode the windows of all images, ``batch_size`` at a time, whatever image they are of.

    Windows of one size share batches; windows are cut when their batch is due.

    Args:
        images: each (C, H, W), sizes may differ.
        layouts: windows of each image.
        encode: (b, C, h, w) -> (b, K, gh, gw); with ``masks`` it is also given those of the
            windows, int64 (b, h, w).
        take: is given the number of the image, that of the window, and its map (K, gh, gw), a view
            of those of its batch; the windows of an image come in order.
        batch_size: windows encoded together.
        paddings: zeros put around the windows of each image; None for none.
        masks: numbers of masks (H, W) of each image, of any size: resized to that of the image, to
            the nearest, and cut as it is. Padding is a mask of its own.
    """
    paddings = paddings or [NO_PADDING] * len(images)
    if masks is not None:
        masks = [resize_nearest(mask, _size(image)) for mask, image in zip(masks, images)]
    groups: dict[tuple[Size, Padding], list[tuple[int, int]]] = {}
    for i, (layout, padding) in enumerate(zip(layouts, paddings, strict=True)):
        members = groups.setdefault((layout.crop, padding), [])
        members.extend((i, w) for w in range(len(layout)))
    for (_, padding), members in groups.items():
        for start in range(0, len(members), batch_size):
            batch = members[start : start + batch_size]
            # Zero after normalisation is the mean colour.
            parts = [F.pad(_crops(images, layouts, batch), padding)]
            if masks is not None:
                parts.append(F.pad(_crops(masks, layouts, batch), padding, value=OUTSIDE))
            encoded = encode(*parts)
            for (i, w), result in zip(batch, encoded, strict=True):
                take(i, w, result)
            del parts, encoded, result  # before the next batch is made


def _crops(
    images: Sequence[Tensor], layouts: Sequence[Windows], batch: Sequence[tuple[int, int]]
) -> Tensor:
    """The windows (image, number) of one size that a batch is made of."""
    crops = []
    for i, w in batch:
        (y, x), (height, width) = layouts[i].starts[w], layouts[i].crop
        crops.append(images[i][..., y : y + height, x : x + width])
    return torch.stack(crops)


def _size(image: Tensor) -> Size:
    return int(image.shape[-2]), int(image.shape[-1])
