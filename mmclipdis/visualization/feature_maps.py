"""What a patch attends to, and which patches are like it: maps of an anchor, as DeCLIP draws.

Two kinds of map tell why dense CLIP fails and what a method changes (DeCLIP, CVPR 2025, figures of
its supplement): the attention weights of one query over all patches, and the cosine of one token
with all others. Both need a single row of an ``N x N`` matrix, and only that row is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmclipdis.clip.towers.affinity import Guide
from mmclipdis.clip.towers.attention import neighbour_bias, run_block, split_heads
from mmclipdis.clip.towers.blocks import view_of
from mmclipdis.clip.towers.image_tower import ImageTower
from mmclipdis.clip.towers.readout import READOUTS, AnyReadout, Readout
from mmclipdis.clip.towers.self_calibrated import SelfCalibrated

#: Groups of maps: attention of the anchor, of CLS; cosines of block outputs, of the last features.
GROUPS = ("attention", "cls", "blocks", "features")
#: Why there is no map of the attention of a readout.
NOT_DRAWN = (
    "{} attends by more than one product of the last block: maps of its attention are not drawn; "
    "leave the group 'attention' out (--show cls blocks features)"
)
NO_ATTENTION = (
    "a readout of the residual alone attends to nothing: leave the group 'attention' out (--show "
    "cls blocks features)"
)
_VANILLA = cast(Readout, READOUTS["vanilla"])


@dataclass(frozen=True)
class FeatureMap:
    """One map of one model.

    Attributes:
        group: Of :data:`GROUPS`.
        title: What it shows, such as ``block 3`` or ``q``.
        values: ``(h, w)`` float32, a value a patch: shares of attention or cosines.
        anchor: Number of the anchor it belongs to; None for CLS.
    """

    group: str
    title: str
    values: np.ndarray
    anchor: int | None = None


def anchor_patch(
    anchor: Sequence[int], size: Sequence[int], grid: tuple[int, int]
) -> tuple[int, int]:
    """Patch (row, column) of a ``grid`` (h, w) laid over a picture that holds a pixel.

    Args:
        anchor: Pixel (x, y).
        size: Height and width of the picture in pixels.
        grid: Patches (h, w).

    Raises:
        ValueError: if the pixel is outside the picture.
    """
    x, y = (int(value) for value in anchor)
    height, width = (int(value) for value in size)
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError(
            f"anchor {x},{y} is outside the picture of {width} x {height} px (x,y from 0,0 at the "
            f"top left to {width - 1},{height - 1})"
        )
    return y * grid[0] // height, x * grid[1] // width


def cosine_map(features: Tensor, patch: tuple[int, int]) -> np.ndarray:
    """Cosine of the feature at ``patch`` (row, column) with all of ``features`` ``(1, C, h, w)``.

    Returns:
        ``(h, w)``; 1 at the patch itself.
    """
    unit = F.normalize(features[0].float(), dim=0)
    return _numpy(torch.einsum("c,chw->hw", unit[:, patch[0], patch[1]], unit))


def attention_rows(
    block: nn.Module,
    x: Tensor,
    rows: Sequence[int],
    readout: Readout = _VANILLA,
    rope: Tensor | None = None,
    grid: tuple[int, int] | None = None,
    prefix: int = 1,
) -> Tensor:
    """Attention weights of some queries over all tokens, ``softmax(s q_i K^T)``.

    Args:
        block: Block of a tower.
        x: Its input ``(B, L, D)``, prefix tokens first.
        rows: Tokens ``i`` whose queries are asked; 0 is CLS, if there is one.
        readout: Which terms attend; CLIP's own ``qk`` unless the last block is read otherwise.
        rope: Rotary table of the patches, for blocks that have rotary positions.
        grid: Patches (h, w), for a readout with ``neighbours``.
        prefix: Tokens before the patches.

    Returns:
        ``(B, len(rows), L)``, the mean over heads and over the readout's terms; a row sums to 1.
        For ``identity``, where tokens attend to nothing but themselves, it is one there.

    Raises:
        ValueError: the readout has a term that is no softmax of the block's own products; or
            neighbours, and there is no ``grid``.
    """
    beyond = [term for term in readout.attention if term in ("layers", "affinity", "gem")]
    if beyond:
        raise ValueError(NOT_DRAWN.format(f"the term {beyond[0]!r}"))
    if not readout.attention:
        raise ValueError(NO_ATTENTION)
    bias: Tensor | None = None
    if readout.neighbours is not None:
        if grid is None:
            raise ValueError("a readout with neighbours needs grid=(h, w), the patches of x")
        bias = neighbour_bias(grid, readout.neighbours, x.device, prefix)[list(rows)]
    view = view_of(block, rope)
    letters = sorted({letter for term in readout.attention if term in _PAIRS for letter in term})
    projected = view.project(view.norm(x), letters)
    parts = {name: split_heads(part, view.heads) for name, part in projected.items()}
    scale = (x.shape[-1] // view.heads) ** -0.5 if readout.scale == "sqrt" else 1.0
    total = x.new_zeros(len(x), len(rows), x.shape[1])
    for term, factor in zip(readout.attention, readout.factors, strict=True):
        if term == "identity":
            total += factor * F.one_hot(torch.tensor(rows, device=x.device), x.shape[1])
            continue
        logits = x.new_zeros(())
        for pair in _PAIRS[term]:
            q, k = parts[pair[0]], parts[pair[1]]
            if term == "qk":
                q, k = view.rotate(q), view.rotate(k)
            logits = logits + q[:, :, list(rows)] @ k.mT * (scale / len(_PAIRS[term]))
        if bias is not None:
            logits = logits + bias
        total += factor * logits.softmax(dim=-1).mean(dim=1)
    return total / sum(readout.factors)


#: What each attention term compares; several products are averaged before the softmax.
_PAIRS = {"qk": ("qk",), "qq": ("qq",), "kk": ("kk",), "vv": ("vv",), "qkv": ("qq", "kk", "vv")}


@torch.no_grad()
def clip_maps(
    tower: ImageTower,
    image: Tensor,
    patches: Sequence[tuple[int, int]],
    layers: Sequence[int],
    readout: AnyReadout = _VANILLA,
    groups: Sequence[str] = GROUPS,
    guide: Guide | None = None,
) -> list[FeatureMap]:
    """All asked maps of a CLIP tower for some anchors.

    Args:
        tower: The image tower.
        image: Normalised RGB ``(1, 3, H, W)``.
        patches: Anchor patches (row, column).
        layers: Blocks, 0-based; negative counts from the end.
        readout: How the last block is read: its attention is that of the readout.
        groups: Of :data:`GROUPS`. ``attention`` and ``cls`` are attention weights of the anchor
            and of CLS, ``blocks`` cosines of (ordinary) block outputs, ``features`` cosines of q,
            k, v of the last block and of the dense map under ``readout``.
        guide: What the affinity of the readout is made of, if it has one.

    Raises:
        ValueError: for a block or group that does not exist, and for a readout whose attention is
            no map of the last block, where that is asked for.
    """
    check_groups(groups)
    maps: list[FeatureMap] = []
    if set(groups) - {"features"}:
        attending = readout if "attention" in groups else None
        maps += _layer_maps(tower, image, patches, check_layers(layers, tower.depth), attending)
    if "features" in groups:
        dense = tower.forward_dense(image, readout, context=("q", "k", "v"), guide=guide)
        rows, columns = tower.grid_of(image)
        grid = (dense.map.shape[-2], dense.map.shape[-1])  # where the middle of each patch lies
        middles = [(2 * x + 1, 2 * y + 1) for y, x in patches]
        at_map = [anchor_patch(middle, (2 * rows, 2 * columns), grid) for middle in middles]
        for title, features in dense.context.items():
            maps += _cosine_maps("features", title, features, patches)
        maps += _cosine_maps("features", "dense map", dense.map, at_map)
    return [found for found in maps if found.group in groups]


@torch.no_grad()
def vfm_maps(vfm: nn.Module, image: Tensor, patches: Sequence[tuple[int, int]]) -> list[FeatureMap]:
    """The map of a vision foundation model: cosines of its features ``(1, Cv, h, w)``."""
    return _cosine_maps("features", "dense map", vfm(image), patches)


def _layer_maps(
    tower: ImageTower,
    image: Tensor,
    patches: Sequence[tuple[int, int]],
    layers: Sequence[int],
    readout: AnyReadout | None,
) -> list[FeatureMap]:
    """Attention (of a readout, unless it is None) and output maps of the blocks in ``layers``."""
    grid = tower.grid_of(image)
    rope = tower.rope(image)
    prefix = tower.prefix
    rows = [prefix + y * grid[1] + x for y, x in patches]
    found: dict[int, list[FeatureMap]] = {}
    x = tower.embed(image)
    for index, block in enumerate(tower.blocks):
        before, x = x, run_block(block, x, rope)
        if index not in layers:
            continue
        title = f"block {index}"
        # CLS is read from the ordinary last block, whatever the patches are read by.
        weights = attention_rows(block, before, [0][:prefix], _VANILLA, rope)
        if readout is not None:
            terms = _last_terms(readout) if index == tower.depth - 1 else _VANILLA
            own = attention_rows(block, before, rows, terms, rope, grid, prefix)
            weights = torch.cat([weights, own], dim=1)
        drawn = [_numpy(row.unflatten(0, grid)) for row in weights[0, :, prefix:]]
        found[index] = [FeatureMap("cls", title, drawn.pop(0))] if prefix else []
        found[index] += [FeatureMap("attention", title, row, i) for i, row in enumerate(drawn)]
        output = x[:, prefix:].mT.unflatten(2, grid)
        found[index] += _cosine_maps("blocks", title, output, patches)
    return [single for index in layers for single in found[index]]


def _last_terms(readout: AnyReadout) -> Readout:
    """What the last block attends by.

    Raises:
        ValueError: it is no map of that block.
    """
    if isinstance(readout, SelfCalibrated):
        raise ValueError(NOT_DRAWN.format("SC-CLIP"))
    return readout if isinstance(readout, Readout) else Readout(readout.attention)


def _cosine_maps(
    group: str, title: str, features: Tensor, patches: Sequence[tuple[int, int]]
) -> list[FeatureMap]:
    return [FeatureMap(group, title, cosine_map(features, p), i) for i, p in enumerate(patches)]


def check_groups(groups: Sequence[str]) -> None:
    """Raise ValueError unless all are names of :data:`GROUPS`, and there is one."""
    unknown = [name for name in groups if name not in GROUPS]
    if unknown or not groups:
        raise ValueError(f"unknown maps {unknown}; known: {', '.join(GROUPS)}")


def check_layers(layers: Sequence[int], depth: int) -> list[int]:
    """``layers`` counted from 0, each once, in their order.

    Raises:
        ValueError: for one that a tower of ``depth`` blocks has not, or none at all.
    """
    wrong = [layer for layer in layers if not -depth <= layer < depth]
    if wrong or not layers:
        raise ValueError(
            f"layers {wrong} do not exist: the tower has the blocks 0 to {depth - 1} "
            "(-1 is the last one)"
        )
    return list(dict.fromkeys(layer % depth for layer in layers))


def spread_layers(depth: int, count: int = 4) -> list[int]:
    """At most ``count`` blocks, evenly spaced, the last one among them."""
    count = min(count, depth)
    return [round((i + 1) * depth / count) - 1 for i in range(count)]


def _numpy(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()
