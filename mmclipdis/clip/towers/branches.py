"""More token sets beside the patches of a tower, summed before the projection (CorrCLIP).

``F = (N(main) + a N(spatial) + b N(semantic)) W`` with the final norm ``N`` and the projection
``W`` (training_free_2 spec 4.3). The *spatial* branch has the values that the last block would have
of the mean of earlier outputs, mixed by the affinity of the main one. The *semantic* branch is one
copy of the CLS token a region, which goes through all blocks and looks at the real CLS and at the
patches of its region. Nobody looks at the copies, so they are queries beside the ordinary stream,
which stays what it is to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmclipdis.clip.towers.affinity import NO_MASKS, Guide, merged
from mmclipdis.clip.towers.attention import recomputed, run_block, run_blocks
from mmclipdis.clip.towers.block_reader import BlockReader
from mmclipdis.clip.towers.readout import AnyReadout, Readout
from mmclipdis.clip.towers.readout_fields import Branches
from mmclipdis.clip.towers.regions import places, resize_nearest

NO_TOKENS = (
    "the dense map of a readout with branches is the sum of several sets of tokens: there is no "
    "one set that it is the projection of; choose a readout without branches"
)

Size = tuple[int, int]


@dataclass(frozen=True)
class RegionCopies:
    """One copy of CLS for each region of each image of a batch.

    Attributes:
        tokens: ``(B, R, D)``; of an image with fewer regions than ``R`` the last are never read.
        of_patch: ``(B, h, w)`` int64, the copy of each patch.
        seen: ``(B, 1, R, p + h * w)`` bool: the tokens that each copy looks at; CLS and the other
            prefix tokens first.
    """

    tokens: Tensor
    of_patch: Tensor
    seen: Tensor

    @classmethod
    def of(cls, embedded: Tensor, regions: Tensor) -> RegionCopies:
        """Those of the input of the first block ``(B, p + h * w, D)`` and regions ``(B, h, w)``."""
        index, counts = places(regions.flatten(1))
        numbers = torch.arange(int(counts.max()), device=regions.device)
        inside = index[:, None] == numbers[:, None]  # (B, R, h * w)
        prefix = embedded.shape[1] - index.shape[1]
        with_prefix = F.pad(inside, (prefix, 0), value=True)
        tokens = embedded[:, :1].expand(-1, len(numbers), -1)
        return cls(tokens, index.view_as(regions), with_prefix[:, None])

    def at(self, tokens: Tensor, grid: Size) -> Tensor:
        """What the copies ``(B, R, E)`` are at each place of another grid: ``(B, gh * gw, E)``."""
        index = resize_nearest(self.of_patch, grid).flatten(1)[..., None]
        return tokens.gather(1, index.expand(-1, -1, tokens.shape[-1]))


@dataclass(frozen=True)
class Beside:
    """What runs beside the ordinary stream.

    Attributes:
        copies: Those of the semantic branch, at the input of the next block.
        averaged: The blocks whose outputs the spatial branch is the mean of.
        mean: That mean ``(B, p + N, D)``, once they have run.
    """

    copies: RegionCopies | None = None
    averaged: Sequence[int] = ()
    mean: Tensor | None = None

    @classmethod
    def of(
        cls,
        branches: Branches | None,
        depth: int,
        embedded: Tensor,
        regions: Tensor | None,
        grid: Size,
    ) -> Beside:
        """What starts with the input of the first block.

        Args:
            branches: Of the readout.
            depth: Blocks of the tower.
            embedded: The input ``(B, p + h * w, D)``.
            regions: Map ``(B, gh, gw)`` on any grid, merged already.
            grid: Patches (h, w).

        Raises:
            ValueError: a semantic branch without regions, or blocks that do not exist.
        """
        if branches is None:
            return cls()
        averaged = branches.range_in(depth)
        if not branches.semantic:
            return cls(averaged=averaged)
        if regions is None:
            raise ValueError(NO_MASKS)
        return cls(RegionCopies.of(embedded, resize_nearest(regions, grid)), averaged)


def run_beside(
    blocks: Iterable[nn.Module],
    x: Tensor,
    beside: Beside,
    keep: Sequence[int] = (),
    checkpoint: bool = False,
    rope: Tensor | None = None,
) -> tuple[Tensor, dict[int, Tensor], Beside]:
    """:func:`~mmclipdis.clip.towers.attention.run_blocks` with the branches beside.

    Args:
        blocks, x, keep, checkpoint, rope: As there.
        beside: At the input of the first block.
    """
    copies, averaged, total = beside.copies, beside.averaged, None
    if copies is None and not averaged:
        return *run_blocks(blocks, x, keep, checkpoint, rope), beside
    kept: dict[int, Tensor] = {}
    tokens, seen = (None, None) if copies is None else (copies.tokens, copies.seen)
    for index, block in enumerate(blocks):
        step = (block, x, tokens, seen, rope)
        x, tokens = recomputed(_run_block, *step) if checkpoint else _run_block(*step)
        if index in keep:
            kept[index] = x
        if index in averaged:
            total = x if total is None else total + x
    if copies is not None and tokens is not None:
        copies = replace(copies, tokens=tokens)
    return x, kept, Beside(copies, averaged, None if total is None else total / len(averaged))


def _run_block(
    block: nn.Module, x: Tensor, copies: Tensor | None, seen: Tensor | None, rope: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The ordinary block, and the copies behind it."""
    if copies is None or seen is None:
        return run_block(block, x, rope), None
    reader = BlockReader(block, x, rope)
    # Without gradients the two share their keys and values; with them the library runs the block.
    out = run_block(block, x, rope) if torch.is_grad_enabled() else reader.ordinary()
    return out, reader.beside(copies, seen)


def read_branches(
    last: BlockReader,
    readout: Readout,
    guide: Guide | None,
    layers: Sequence[BlockReader],
    beside: Beside,
    norm: Callable[[Tensor], Tensor],
) -> Tensor:
    """``N(main) + a N(spatial) + b N(semantic)`` of a readout with branches, ``(B, n, D)``.

    Args:
        last: The last block at its input.
        readout, guide, layers: As in :meth:`BlockReader.patches`; regions are merged already.
        beside: What :func:`run_beside` gives.
        norm: The final norm of the tower.

    Raises:
        ValueError: as :meth:`BlockReader.patches`.
    """
    branches = cast(Branches, readout.branches)
    if beside.mean is None:
        total = norm(last.patches(readout, guide, layers))
    else:
        main, spatial = last.patches_and_spatial(readout, guide, layers, beside.mean)
        total = norm(main) + branches.spatial * norm(spatial)
    if beside.copies is None or guide is None:
        return total
    semantic = norm(last.beside(beside.copies.tokens, beside.copies.seen))
    return total + branches.semantic * beside.copies.at(semantic, guide.grid)


def merged_once(readout: AnyReadout, guide: Guide | None) -> tuple[AnyReadout, Guide | None]:
    """The guide with the regions that all branches share, and a readout that merges no more."""
    if not isinstance(readout, Readout) or readout.affinity is None or guide is None:
        return readout, guide
    affinity, guide = merged(readout.affinity, guide)
    return replace(readout, affinity=affinity), guide
