"""A row-stochastic matrix in the last block that comes from somewhere else than its q, k, v.

``W v`` with ``W = softmax_row(scale (S - shift mean(S)))`` and the cosines ``S = u u^T`` of the
tokens of a guide: a vision model, or another block (training_free_2 spec 1.2). All heads share the
matrix, and CLS is neither query nor key. The grid of the result is that of the guide's tokens: the
values are resized bilinearly to it.

``S`` is never whole: rows of it are made, used and thrown away, so that memory grows with the
number of tokens and not with its square. Its mean, ``|mean_i u_i|^2``, needs no pass over it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.clip.towers.readout_fields import Affinity
from mmclipdis.clip.towers.regions import merge_regions
from mmclipdis.utils.interpolation import is_symbol

NO_MASKS = (
    "an affinity with scope='masks' needs the masks of the photo, which only OpenVocabSegmentor "
    "and CATSeg hand on, and only to predict: use one of them with masks=dict(type='MaskFolder', "
    "root=...) or a function of the photo, or another readout"
)

#: Bytes of the rows of ``S`` that are in memory at a time: more are no faster.
ROW_BYTES = 16e6


@dataclass(frozen=True)
class Guide:
    """What the affinities of a batch of windows are made of.

    Attributes:
        tokens: ``(B, C, gh, gw)`` of a vision model or of a block, not normalised.
        regions: ``(B, gh, gw)`` int64, the mask that each token lies in, for ``scope='masks'``; the
            smallest number of a window means "in no mask" (training_free_2 spec 4.1).
        mean: ``mean(S)`` of each window ``(B,)`` where it is not that of its own tokens, such as
            the mean of all windows of an image (Trident).
    """

    tokens: Tensor
    regions: Tensor | None = None
    mean: Tensor | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens (rows, columns)."""
        return int(self.tokens.shape[-2]), int(self.tokens.shape[-1])


def unit_tokens(tokens: Tensor) -> Tensor:
    """Unit tokens ``(B, n, C)``, at least float32, of a map ``(B, C, gh, gw)``."""
    flat = tokens.flatten(2).transpose(1, 2)
    return F.normalize(flat.to(torch.promote_types(flat.dtype, torch.float32)), dim=-1, eps=1e-12)


def mean_cosine(unit: Tensor) -> Tensor:
    """``mean(S)`` of every window ``(B,)``, of unit tokens ``(B, n, C)``."""
    return unit.mean(dim=1).square().sum(dim=-1)


def affinity_rows(
    affinity: Affinity, unit: Tensor, mean: Tensor, regions: Tensor | None, rows: slice
) -> Tensor:
    """Some rows ``(B, r, n)`` of ``W``.

    Args:
        affinity: How it is made.
        unit: Unit tokens ``(B, n, C)``.
        mean: Their :func:`mean_cosine`.
        regions: ``(B, n)`` int64, merged already, for ``scope='masks'``.
        rows: Which rows.

    Raises:
        ValueError: ``scope='masks'`` without regions.
    """
    cosines = unit[:, rows] @ unit.transpose(1, 2)
    dropped: Tensor | None = None
    if affinity.scope == "masks":
        if regions is None:
            raise ValueError(NO_MASKS)
        dropped = ~in_scope(cosines, mean, regions, rows)
    # in place, as nothing reads the cosines again: rows are the largest thing in memory
    logits = cosines.sub_(affinity.shift * mean[:, None, None]) if affinity.shift else cosines
    logits = logits.mul_(affinity.scale)
    if affinity.keep == "positive":
        dropped = logits < 0 if dropped is None else dropped | (logits < 0)
    if dropped is not None:
        diagonal = torch.arange(rows.start, rows.start + logits.shape[1], device=unit.device)
        dropped.scatter_(2, diagonal.expand(unit.shape[0], -1)[..., None], False)
        logits = logits.masked_fill_(dropped, -torch.inf)
    return logits.softmax(dim=-1)


def in_scope(cosines: Tensor, mean: Tensor, regions: Tensor, rows: slice) -> Tensor:
    """Which tokens ``(B, r, n)`` those of some rows may look at (training_free_2 spec 4.2).

    Those of their own mask. A token in no mask looks at those, and is looked at by those, whose
    cosine is above the mean.
    """
    free = regions == regions.amin(dim=1, keepdim=True)
    same = (regions[:, rows, None] == regions[:, None]) & ~free[:, None]
    either = free[:, rows, None] | free[:, None]
    return same | (either & (cosines > mean[:, None, None]))


def merged(affinity: Affinity, guide: Guide) -> tuple[Affinity, Guide]:
    """The guide with its regions merged as the affinity says, and the affinity without that."""
    if affinity.merge is None or guide.regions is None:
        return affinity, guide
    with torch.autocast(guide.tokens.device.type, enabled=False):
        unit, flat = unit_tokens(guide.tokens), guide.regions.flatten(1)
        regions = merge_regions(unit, flat, affinity.merge).view_as(guide.regions)
    return replace(affinity, merge=None), replace(guide, regions=regions)


def mix(affinity: Affinity, guide: Guide, values: Tensor) -> Tensor:
    """``W V``: the values mixed by the affinity of a guide.

    Args:
        affinity: How the matrix is made.
        guide: What of.
        values: ``(B, D, h, w)`` on any grid, resized bilinearly to the guide's.

    Returns:
        ``(B, gh * gw, D)`` in the type of ``values``.

    Raises:
        ValueError: guide and values are of different batches; ``scope='masks'`` without regions.
    """
    if guide.tokens.shape[0] != values.shape[0]:  # len() would fix the batch of an export
        raise ValueError(f"a guide of {len(guide.tokens)} windows for values of {len(values)}")
    with torch.autocast(values.device.type, enabled=False):
        affinity, guide = merged(affinity, guide)
        parts = [
            _mixed(affinity, _some(guide, windows), values[windows])
            for windows in blocks_of_windows(guide)
        ]
        return torch.cat(parts)


def _mixed(affinity: Affinity, guide: Guide, values: Tensor) -> Tensor:
    """:func:`mix` of a few windows, whose regions are merged already."""
    unit = unit_tokens(guide.tokens)
    at_grid = resize_values(values.to(unit.dtype), guide.grid).flatten(2).transpose(1, 2)
    mean = mean_cosine(unit) if guide.mean is None else guide.mean.to(unit.dtype)
    regions = None if guide.regions is None else guide.regions.flatten(1)
    parts = [
        affinity_rows(affinity, unit, mean, regions, rows) @ at_grid
        for rows in blocks_of_rows(unit)
    ]
    del unit, at_grid  # the parts are in memory twice for a moment
    return torch.cat(parts, dim=1).to(values.dtype)


def _some(guide: Guide, windows: slice) -> Guide:
    """The guide of some of its windows."""
    regions, mean = guide.regions, guide.mean
    return Guide(
        guide.tokens[windows],
        None if regions is None else regions[windows],
        None if mean is None else mean[windows],
    )


def blocks_of_windows(guide: Guide) -> Iterator[slice]:
    """Windows of a guide: as many at a time as :data:`ROW_BYTES` allow with all of their rows.

    At least one: few rows each of many windows would be slow products.
    """
    shape = guide.tokens.shape
    if is_symbol(shape[0], *shape[-2:]):  # an export for any batch or image size
        yield slice(None)
        return
    count = shape[-2] * shape[-1]
    size = torch.promote_types(guide.tokens.dtype, torch.float32).itemsize
    step = max(1, int(ROW_BYTES / (size * count**2)))
    for start in range(0, len(guide.tokens), step):
        yield slice(start, start + step)


def blocks_of_rows(unit: Tensor) -> Iterator[slice]:
    """Rows of ``S`` of unit tokens ``(B, n, C)``, as many at a time as :data:`ROW_BYTES` allow."""
    if any(map(is_symbol, unit.shape[:2])):  # an export for any batch or any image size
        yield slice(0, unit.shape[1])
        return
    step = max(1, int(ROW_BYTES / (unit.element_size() * unit.shape[0] * unit.shape[1])))
    for start in range(0, unit.shape[1], step):
        yield slice(start, start + step)


def resize_values(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """A map ``(B, D, h, w)`` at another grid: bilinear, half-pixel centres, edges repeated."""
    if tuple(values.shape[-2:]) == grid:
        return values
    return F.interpolate(values, size=grid, mode="bilinear", align_corners=False)
