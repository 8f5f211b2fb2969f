"""A tower whose windows are put together before the last block (OV-Stitcher, CVPR 2026).

CLIP sees windows, at the size that it was trained for. The values of its last block are put
together on the grid of patches of the image, the mean where windows overlap, and what the branches
of :mod:`mmclipdis.clip.towers.branches` read, if there are some (training_free_2 spec 5.1). Of
their blocks that is the input and the normed input: a projection of the mean is the mean of the
projections.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmclipdis.clip.towers.affinity import Guide, mix
from mmclipdis.clip.towers.attention import finish_block, logit_factor, run_blocks, split_heads
from mmclipdis.clip.towers.block_reader import BlockReader
from mmclipdis.clip.towers.blocks import BlockView, view_of
from mmclipdis.clip.towers.branches import Beside, run_beside
from mmclipdis.clip.towers.features import tokens_to_map
from mmclipdis.clip.towers.image_tower import ImageTower
from mmclipdis.clip.towers.readout import Readout
from mmclipdis.clip.towers.readout_fields import Affinity, Branches


def last_values(tower: ImageTower, images: Tensor) -> Tensor:
    """Values of the last block, ``(B, D, h, w)``, of images ``(B, 3, H, W)``."""
    rope, grid = tower.rope(images), tower.grid_of(images)
    blocks, checkpoint = tower.blocks[:-1], tower.grad_checkpointing
    x, _ = run_blocks(blocks, tower.embed(images), (), checkpoint, rope)
    return BlockReader(tower.blocks[-1], x, rope, grid, tower.prefix).values()


def mixed_tokens(tower: ImageTower, values: Tensor, affinity: Affinity, guide: Guide) -> Tensor:
    """What the final norm follows: the attention output ``A``, a map ``(B, D, gh, gw)``.

    Args:
        tower: CLIP's.
        values: ``(B, D, h, w)`` of :func:`last_values`, put together from windows or not.
        affinity: How the matrix is made.
        guide: What of; the map has its grid.
    """
    tokens = view_of(tower.blocks[-1]).merge(mix(affinity, guide, values))
    return tokens_to_map(tokens, guide.grid)


def joint_map(tower: ImageTower, tokens: Tensor) -> Tensor:
    """The dense map ``(B, E, h, w)`` of tokens ``(B, D, h, w)``: final norm, projection."""
    grid = (int(tokens.shape[-2]), int(tokens.shape[-1]))
    return tokens_to_map(tower.to_joint(tokens.flatten(2).transpose(1, 2)), grid)


def window_parts(
    tower: ImageTower, images: Tensor, branches: Branches, regions: Tensor | None = None
) -> Tensor:
    """What windows have to tell, ``(B, K D, h, w)`` on CLIP's grid.

    The normed input of the last block; input and normed input of each block of the spatial branch;
    of the semantic branch the copy of CLS of the region that each patch lies in, last.

    Args:
        tower: CLIP's.
        images: Windows ``(B, 3, H, W)``.
        branches: Those of the readout.
        regions: ``(B, H, W)`` int64, merged already, for the semantic branch.

    Raises:
        ValueError: a semantic branch without regions, or blocks that do not exist.
    """
    embedded, grid, rope = tower.embed(images), tower.grid_of(images), tower.rope(images)
    beside = Beside.of(branches, tower.depth, embedded, regions, grid)
    averaged = beside.averaged
    inputs, beside = [index - 1 for index in averaged], replace(beside, averaged=())
    x, kept, beside = run_beside(
        tower.blocks[:-1], embedded, beside, inputs, tower.grad_checkpointing, rope
    )
    kept[-1] = embedded
    last = BlockReader(tower.blocks[-1], x, rope, grid, tower.prefix)
    prefix = tower.prefix
    parts = [last.normed[:, prefix:]]
    for index in averaged:
        before = kept[index - 1]
        normed = view_of(tower.blocks[index]).norm(before)
        parts += [before[:, prefix:], normed[:, prefix:]]
    if beside.copies is not None:
        copies = last.beside(beside.copies.tokens, beside.copies.seen)
        parts.append(beside.copies.at(copies, grid))
    return tokens_to_map(torch.cat(parts, dim=-1), grid)


def read_stitched(
    tower: ImageTower,
    parts: Tensor,
    semantic: Tensor | None,
    readout: Readout,
    guide: Guide,
) -> Tensor:
    """The dense map ``(1, E, gh, gw)`` of an image whose windows were put together.

    Args:
        tower: CLIP's.
        parts: ``(1, K D, h, w)`` of :func:`window_parts` but for the copies.
        semantic: The copies ``(1, D, gh, gw)``, on the grid of the guide.
        readout: An affinity alone, with branches; regions of the guide are merged already.
        guide: Of the whole image.

    Raises:
        ValueError: ``scope='masks'`` without regions.
    """
    branches = cast(Branches, readout.branches)
    affinity = replace(cast(Affinity, readout.affinity), merge=None)  # it is done already
    grid = (parts.shape[-2], parts.shape[-1])
    view, norm = view_of(tower.blocks[-1]), tower.norm_post
    tokens = parts.flatten(2).transpose(1, 2)
    normed, *blocks = tokens.chunk(tokens.shape[-1] // tower.width, dim=-1)
    values = [view.project(normed, "v")["v"]]
    if blocks:
        mean = _spatial(tower, blocks, branches, grid)
        values.append(view.project(view.norm(mean), "v")["v"])
    at_grid = tokens_to_map(torch.cat(values, dim=-1), grid)
    main, *spatial = mix(affinity, guide, at_grid).chunk(len(values), dim=-1)
    total = norm(view.merge(main))
    for mixed in spatial:
        total = total + branches.spatial * norm(view.merge(mixed))
    if semantic is not None:
        total = total + branches.semantic * norm(semantic.flatten(2).transpose(1, 2))
    return tokens_to_map(tower.project(total), guide.grid)


def _spatial(
    tower: ImageTower, blocks: list[Tensor], branches: Branches, grid: tuple[int, int]
) -> Tensor:
    """Mean ``(1, N, D)`` of the blocks' outputs for the tokens of the whole image."""
    height, width = (count * side for count, side in zip(grid, tower.patch_size, strict=True))
    rope = tower.rope(blocks[0].new_zeros(()).expand(1, 3, height, width))
    outputs = [
        image_block(tower.blocks[index], x, normed, rope, tower.prefix)
        for index, x, normed in zip(
            branches.range_in(tower.depth), blocks[::2], blocks[1::2], strict=True
        )
    ]
    return torch.stack(outputs).mean(dim=0)


def image_block(
    block: nn.Module, x: Tensor, normed: Tensor, rope: Tensor | None = None, prefix: int = 1
) -> Tensor:
    """A block on the patches of an image, without CLS, ``(1, N, D)``.

    Its attention is over the full width, as with one head, but with the scale of a head (the
    published code; training_free_2 spec 5.1).

    Args:
        block: Block of open_clip or timm.
        x: Its input.
        normed: Its normed input: that of windows put together, which is not the norm of ``x``.
        rope: Rotary table of the patches, for blocks that have rotary positions.
        prefix: Prefix tokens that the tower has, and ``x`` has not.
    """
    view = view_of(block, rope)
    projected = view.project(normed, "qkv")
    query, key = (_rotated(view, projected[part], prefix) for part in "qk")
    scale = logit_factor("sqrt", x.shape[-1] // view.heads)
    value = projected["v"][:, None]
    out = F.scaled_dot_product_attention(query[:, None], key[:, None], value, scale=scale)
    return finish_block(block, x, view.merge(out[:, 0]), residual="token", ffn=True)


def _rotated(view: BlockView, part: Tensor, prefix: int) -> Tensor:
    """Queries or keys ``(1, N, D)`` of patches with their positions."""
    heads = F.pad(split_heads(part, view.heads), (0, 0, prefix, 0))  # rows where CLS would be
    return view.rotate(heads)[:, :, prefix:].transpose(1, 2).flatten(2)
