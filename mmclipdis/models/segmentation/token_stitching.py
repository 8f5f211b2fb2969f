"""Tokens of windows on one grid, mixed over the whole image before the head (Trident, ICCV 2025).

With ``test_cfg.stitch='tokens'`` each window goes through the last block's attention, as with
``'scores'``, and not the scores but the tokens behind it are put together, on the grid of patches
of the image. There a ``token_mixer`` may mix them once more by a matrix of its own, and the final
norm, the projection and the comparison with names follow once, for the whole image.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmclipdis.clip.towers.affinity import Guide, mean_cosine, resize_values, unit_tokens
from mmclipdis.clip.towers.regions import OUTSIDE, resize_nearest
from mmclipdis.models.segmentation.encoding import encode_windows
from mmclipdis.models.segmentation.stitching import Canvases, check_whole_patches
from mmclipdis.models.segmentation.windows import Padding, Size, Windows, cut
from mmclipdis.utils.statistics import CLIP, convert

#: ``(pixels (1, 3, H, W), tokens (1, D, h, w)) -> tokens (1, D, gh, gw)``; CLIP's mean and std are
#: taken off the pixels, whichever CLIP the tokens are of.
TokenMixer = Callable[[Tensor, Tensor], Tensor]


def build_mixer(config: Any) -> Any:
    """A frozen ``token_mixer``.

    Raises:
        ValueError: what is built does not mix tokens.
    """
    mixer: Any = MODELS.build(dict(config)) if isinstance(config, Mapping) else config
    if not isinstance(mixer, nn.Module) or not _takes_two(mixer.forward):
        raise ValueError(
            "token_mixer must be the config of a module that makes tokens of (pixels, tokens), "
            f"such as dict(type='SAMMatrix', ...); got {config!r:.200}"
        )
    return mixer.requires_grad_(False)


def _takes_two(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    return True


def token_maps(
    backbone: Any,
    images: Sequence[Tensor],
    layouts: Sequence[Windows],
    batch_size: int,
    paddings: Sequence[Padding],
    masks: Sequence[Tensor] | None = None,
    mixer: TokenMixer | None = None,
) -> list[Tensor]:
    """Dense maps ``(1, E, gh, gw)`` of whole images, in the joint space.

    The mean of the cosines that the affinity takes off is that of all windows of the image.

    Args:
        backbone: ``CLIPViT`` whose readout is an affinity and nothing else.
        images: Each ``(3, H, W)``.
        layouts: Their windows.
        batch_size: Windows that are encoded together.
        paddings: Pixels around the windows of each image.
        masks: ``(H, W)`` int64 each, if the affinity has ``scope='masks'``.
        mixer: What mixes the tokens of an image; it sees the image with its padding. None leaves
            them as they are.

    Raises:
        ValueError: windows that are no whole patches; no masks where there must be some.
    """
    for layout, padding in zip(layouts, paddings, strict=True):
        check_whole_patches(layout, padding, backbone.pad_multiple)
    values = encode_windows(images, layouts, backbone.values, batch_size, paddings)
    tokens = encode_windows(images, layouts, backbone.guide_tokens, batch_size, paddings)
    maps = []
    for i, (image, layout, padding) in enumerate(zip(images, layouts, paddings, strict=True)):
        regions = None
        if masks is not None:
            regions = _regions(layout, padding, masks[i], _grid(tokens[i]))
        on_grid = Canvases([layout], [padding])
        for number, mixed in enumerate(
            _mixed_windows(backbone, values[i], tokens[i], regions, batch_size)
        ):
            on_grid.add(0, number, mixed)
        stitched = on_grid.pop(0)
        if mixer is not None:
            seen = convert(image[None], backbone.statistics, CLIP)  # as mixers take pixels
            stitched = mixer(F.pad(seen, padding), stitched)
        maps.append(backbone.joint_map(stitched))
    return maps


def _mixed_windows(
    backbone: Any, values: Tensor, tokens: Tensor, regions: Tensor | None, batch_size: int
) -> Iterator[Tensor]:
    """Tokens ``(D, gh, gw)`` of each window of an image, on CLIP's grid or a multiple of it."""
    pairs = zip(values.split(batch_size), tokens.split(batch_size), strict=True)
    means = [mean_cosine(unit_tokens(some)) for some in tokens.split(batch_size)]
    mean = torch.cat(means).mean()
    grid = whole_multiple(_grid(tokens), _grid(values))
    for number, (some, guiding) in enumerate(pairs):
        start = number * batch_size
        where = None if regions is None else regions[start : start + batch_size]
        guide = Guide(guiding, where, mean.expand(len(guiding)))
        yield from resize_values(backbone.mixed_tokens(some, guide), grid)


def _regions(layout: Windows, padding: Padding, mask: Tensor, grid: Size) -> Tensor:
    """The masks ``(n, gh, gw)`` that the tokens of the windows of an image lie in."""
    windows = cut(resize_nearest(mask, layout.size), layout)
    return resize_nearest(F.pad(windows, padding, value=OUTSIDE), grid)


def whole_multiple(grid: Size, of: Size) -> Size:
    """The multiple of a grid that is nearest to another, at least the grid itself.

    21 x 21 tokens of a vision model and 24 x 24 patches of CLIP: 24 x 24.
    """
    return (
        max(1, math.floor(grid[0] / of[0] + 0.5)) * of[0],
        max(1, math.floor(grid[1] / of[1] + 0.5)) * of[1],
    )


def _grid(maps: Tensor) -> Size:
    return int(maps.shape[-2]), int(maps.shape[-1])
