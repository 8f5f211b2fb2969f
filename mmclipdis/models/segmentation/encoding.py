"""Encoding the windows of several images in equal batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.models.segmentation.windows import NO_PADDING, Padding, Size, Windows


def encode_windows(
    images: Sequence[Tensor],
    layouts: Sequence[Windows],
    encode: Callable[[Tensor], Tensor],
    batch_size: int,
    paddings: Sequence[Padding] | None = None,
) -> list[Tensor]:
    """Encode the windows of all images, ``batch_size`` at a time, whatever image they are of.

    Windows of one size share batches; windows are cut when their batch is due.

    Args:
        images: each (C, H, W), sizes may differ.
        layouts: windows of each image.
        encode: (b, C, h, w) -> (b, K, gh, gw).
        batch_size: windows encoded together.
        paddings: zeros put around the windows of each image; None for none.

    Returns:
        For each image the maps of its windows (n, K, gh, gw).
    """
    paddings = paddings or [NO_PADDING] * len(images)
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
