"""A CLIP backbone that another vision model tells which patches belong together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor

from mmclipdis.clip.towers.affinity import NO_MASKS, Guide
from mmclipdis.clip.towers.block_reader import NO_GUIDE
from mmclipdis.clip.towers.last_block import LastBlockParts
from mmclipdis.clip.towers.readout_fields import Affinity, Branches
from mmclipdis.clip.towers.regions import resize_nearest
from mmclipdis.clip.towers.stitched import (
    joint_map,
    last_values,
    mixed_tokens,
    read_stitched,
    window_parts,
)
from mmclipdis.clip.weights.readout_mark import describe_readout
from mmclipdis.models.unsaved import SharesUnsaved, leave_out_of_checkpoints
from mmclipdis.utils.statistics import Statistics


class Guided(SharesUnsaved):
    """Mixin of a backbone whose readout may have an affinity (training_free_2 spec 1.2, 1.3).

    Attributes:
        vfm: The frozen vision model, or None.
    """

    vfm: Any
    tower: Any
    readout: Any
    normalize: bool
    statistics: Statistics

    def take_guide(self, vfm: Mapping[str, Any] | None) -> None:
        """Build the ``vfm``, frozen and outside checkpoints, if the readout wants one.

        Raises:
            ValueError: it wants one and there is none, or the other way round; or ``vfm`` is no
                config of a vision model.
        """
        if (vfm is None) != (self.affinity is None):
            raise ValueError(
                f"readout {describe_readout(self.readout)} has no affinity that vfm={vfm!r} could "
                "guide: leave vfm out, or choose a readout such as 'proxyclip'"
                if self.affinity is None
                else NO_GUIDE
            )
        self.vfm = None if vfm is None else _built(vfm).requires_grad_(False)
        if vfm is not None:
            leave_out_of_checkpoints(self, ("vfm",))

    @property
    def affinity(self) -> Affinity | None:
        """How the readout's affinity is made, if it has one."""
        return getattr(self.readout, "affinity", None)

    @property
    def branches(self) -> Branches | None:
        """The readout's branches, if it has some."""
        return getattr(self.readout, "branches", None)

    @property
    def needs_masks(self) -> bool:
        """Whether ``forward`` needs masks of the images."""
        return self.affinity is not None and self.affinity.scope == "masks"

    @property
    def pad_multiple(self) -> tuple[int, int]:
        """Sides (height, width) in pixels that are whole patches of CLIP and of the ``vfm``."""
        height, width = self.tower.patch_size
        if self.vfm is None or self.vfm.fixed_grid is not None:
            return height, width
        return math.lcm(height, self.vfm.patch_size[0]), math.lcm(width, self.vfm.patch_size[1])

    def guide(self, images: Tensor, masks: Tensor | None = None) -> Guide | None:
        """What the readout's affinity is made of for ``images``, if it has one; see ``dense``.

        Raises:
            ValueError: as ``dense``.
        """
        if self.affinity is None:
            return None
        size, multiple = (int(images.shape[-2]), int(images.shape[-1])), self.pad_multiple
        if size[0] % multiple[0] or size[1] % multiple[1]:
            raise ValueError(
                f"a window of {size[0]} x {size[1]} px is no whole number of patches of CLIP and "
                f"of {self.vfm.name!r}: choose sides that are multiples of {multiple[0]} x "
                f"{multiple[1]} px, or pad to them (size_divisor of mmseg's data_preprocessor, "
                "pad_size_divisor of mmdet's); type='OpenVocabSegmentor' as the model pads by "
                "itself (unless test_cfg.window_padding='floor')"
            )
        if self.needs_masks and masks is None:
            raise ValueError(NO_MASKS)
        tokens = self.guide_tokens(images)
        grid = (tokens.shape[-2], tokens.shape[-1])
        return Guide(tokens, resize_nearest(masks, grid) if masks is not None else None)

    def guide_tokens(self, images: Tensor) -> Tensor:
        """Tokens ``(B, C, gh, gw)`` of the ``vfm`` for images ``(B, 3, H, W)`` of CLIP."""
        tokens: Tensor = self.vfm(self.vfm.from_clip(images, self.statistics))
        return tokens

    @property
    def stitches_last_block(self) -> bool:
        """Whether windows of the ``vfm`` are put together before its last block, not behind it.

        With branches and the map of the ``vfm`` (OV-Stitcher, training_free_2 spec 5.2).
        """
        return self.branches is not None and self.vfm is not None and self.vfm.feature == "map"

    def window_guide(self, images: Tensor) -> Tensor:
        """What windows ``(B, 3, H, W)`` give to :meth:`stitched_guide`, ``(B, K, gh, gw)``."""
        if not self.stitches_last_block:
            return self.guide_tokens(images)
        parts = self.vfm.last_block_parts(self.vfm.from_clip(images, self.statistics))
        return torch.cat([parts.input, parts.q, parts.k, parts.v], dim=1)

    def stitched_guide(self, parts: Tensor) -> Tensor:
        """Tokens ``(1, C, gh, gw)`` of an image from :meth:`window_guide`, put together."""
        if not self.stitches_last_block:
            return parts
        tokens: Tensor = self.vfm.finish_last_block(LastBlockParts(*parts.chunk(4, dim=1)))
        return tokens

    def window_parts(self, images: Tensor, regions: Tensor | None) -> Tensor:
        """What the branches read of windows; see :mod:`mmclipdis.clip.towers.stitched`."""
        return window_parts(self.tower, images, self.readout.branches, regions)

    def read_stitched(self, parts: Tensor, semantic: Tensor | None, guide: Guide) -> Tensor:
        """The dense map ``(1, E, gh, gw)`` of an image from :meth:`window_parts`, put together."""
        dense = read_stitched(self.tower, parts, semantic, self.readout, guide)
        return F.normalize(dense, dim=1) if self.normalize else dense

    def values(self, images: Tensor) -> Tensor:
        """Values of the last block ``(B, D, h, w)`` of images ``(B, 3, H, W)``, to be stitched."""
        return last_values(self.tower, images)

    def mixed_values(self, values: Tensor, guide: Guide) -> Tensor:
        """The dense map ``(B, E, gh, gw)`` from :meth:`values` and the readout's affinity."""
        return self.joint_map(self.mixed_tokens(values, guide))

    def mixed_tokens(self, values: Tensor, guide: Guide) -> Tensor:
        """What the head's norm and projection follow, ``(B, D, gh, gw)``, from :meth:`values`."""
        return mixed_tokens(self.tower, values, cast(Affinity, self.affinity), guide)

    def joint_map(self, tokens: Tensor) -> Tensor:
        """The dense map ``(B, E, h, w)`` of :meth:`mixed_tokens`, stitched, mixed or not."""
        dense = joint_map(self.tower, tokens)
        return F.normalize(dense, dim=1) if self.normalize else dense


def _built(vfm: Any) -> Any:
    """The vision model of a config."""
    named = isinstance(vfm, Mapping) and "type" in vfm
    built = MODELS.build(dict(vfm)) if named else None
    if not hasattr(built, "from_clip"):
        raise ValueError(
            f"vfm={' '.join(repr(vfm).split())[:120]} is no vision model: give the config of one, "
            "such as dict(type='TimmVFM', model='dino-B-8', init_cfg=...)"
        )
    return built


def check_map_on_patches(encoder: Any, given: str) -> None:
    """Refuse an encoder whose dense map has another grid than the outputs of its blocks.

    Args:
        encoder: Any backbone of CLIP; one without ``vfm`` passes.
        given: How the config names it, for the message.

    Raises:
        ValueError: naming what fits.
    """
    vfm = getattr(encoder, "vfm", None)
    if vfm is None:
        return
    height, width = encoder.patch_size
    if vfm.fixed_grid is not None or tuple(vfm.patch_size) != (height, width):
        raise ValueError(
            f"{given}.vfm={vfm.name!r} gives the dense map another grid than the blocks have, and "
            f"here both need one: choose a vision model with patches of {height} x {width} px and "
            "no input_size, or a readout without affinity"
        )


def check_has_blocks(encoder: Any, given: str) -> None:
    """Refuse an encoder of stages, such as a ``CLIPResNet`` or a ``CLIPConvNet``.

    Args:
        encoder: Any backbone of CLIP.
        given: How the config names it, for the message.

    Raises:
        ValueError: naming what fits.
    """
    if not hasattr(encoder, "num_blocks"):
        raise ValueError(
            f"{given} is a {type(encoder).__name__}, which has no transformer blocks; take a "
            "CLIPViT or one of its presets such as DeCLIPViT"
        )
