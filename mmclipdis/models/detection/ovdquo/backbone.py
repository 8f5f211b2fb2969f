"""OV-DQUO's backbone on a frozen CLIP ViT: three levels, and embeddings of regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from mmclipdis.models.detection.frozen_vit import FrozenViT
from mmclipdis.models.detection.regions import region_embeddings

#: Patches a location of the three levels.
LEVEL_STRIDES = ((0.5, 1, 2), (1, 2, 4))


@MODELS.register_module()
class OVDQUOViTBackbone(FrozenViT):
    """A pyramid of three levels of a frozen CLIP ViT, and its dense map in the joint space.

    =====  ======  ================================================================
    level  stride  made of
    =====  ======  ================================================================
    0      P / 2   block ``out_indices[0]``: ConvT
    1      P       block ``out_indices[1]``, as it is
    2      2 P     last level, MaxPool (of an odd grid the last row and column, too)
    =====  ======  ================================================================

    ``P`` is the patch in pixels; ConvT is ``ConvTranspose2d(W, W, 2, stride=2)``, the one part that
    is trained (in the published models at a tenth of the detector's rate). One pass of the encoder
    gives all of it. The encoder has no gradients and stays in evaluation mode. These are the
    published levels, of 8, 16 and 32 pixels on a B/16; ``level_strides`` gives others.

    Args:
        encoder: Config of a :class:`~mmclipdis.models.backbones.CLIPViT` or one of its presets,
            EVA-02 or OpenAI-style, with ``arch``, ``readout``, ``positions``, ``any_readout``,
            ``init_cfg``.
        out_indices: The three blocks, 0-based, ascending; (5, 7, 11) for B, (10, 14, 23) for L.
            Negative counts from the end.
        level2: What the last level is: ``'readout'``, the patch tokens of the last block under the
            encoder's readout, before the final norm; or ``'vanilla'``, the output of block
            ``out_indices[2]`` as CLIP has it, which for a readout without residual stream and FFN
            (DeCLIP) has another scale. Nothing is published on it for DeCLIP.
        normalize: ``'before'``: the dense map is L2-normalised over its channels before regions
            are pooled. ``'after'``: only what was pooled is (as DeCLIP distils).
        dense_map: Whether :meth:`forward` returns the dense map, too. False for stock detectors,
            whose necks take the levels alone.
        level_strides: Patches a location of each level: ``(0.5, 1, 2)`` as published, or, for small
            patches, ``(1, 2, 4)``, where level 1 is pooled, too, and nothing is trained. A query
            starts with a box of 0.05, 0.1 or 0.2 of the image by its level.

    Input of :meth:`forward`: ``(B, 3, H, W)`` RGB with a mean and std taken off (OV-DQUO: those of
    ImageNet, though CLIP was trained with its own), square or not; both sides multiples of ``P``.

    Raises:
        ValueError: for another kind of encoder, options of it that are decided here, or values that
            do not go together.

    Source: OV-DQUO (AAAI 2025) with the ViTs of CLIPSelf.
    """

    usual_blocks = "OV-DQUO: (5, 7, 11) for ViT-B, (10, 14, 23) for ViT-L"

    def __init__(
        self,
        encoder: Mapping[str, Any],
        out_indices: Sequence[int] = (5, 7, 11),
        level2: str = "readout",
        normalize: str = "before",
        dense_map: bool = True,
        level_strides: Sequence[float] = (0.5, 1, 2),
    ) -> None:
        super().__init__(encoder, out_indices, level2, normalize, num_levels=3)
        if tuple(level_strides) not in LEVEL_STRIDES:
            raise ValueError(
                f"{self._name}.level_strides must be one of "
                f"{', '.join(map(str, LEVEL_STRIDES))}, got {level_strides!r}"
            )
        self.dense_map = dense_map
        self.level_strides = tuple(level_strides)
        if 0.5 in self.level_strides:
            self.upsample = nn.ConvTranspose2d(self.width, self.width, kernel_size=2, stride=2)
        self.train(self.training)  # all but the encoder

    @property
    def strides(self) -> tuple[float, ...]:
        """Pixels a location of the three levels; (7, 14, 28) for patch 14."""
        return tuple(self.patch_size * stride for stride in self.level_strides)

    @property
    def level_widths(self) -> tuple[int, ...]:
        """Channels of the three levels, the neck's ``in_channels``."""
        return (self.width,) * 3

    def forward(self, images: Tensor) -> tuple[Any, ...]:
        """The pyramid, and what regions are pooled from.

        Args:
            images: ``(B, 3, H, W)``; ``h x w`` are its patches.

        Returns:
            Maps ``(B, W, 2h, 2w)``, ``(B, W, h, w)`` and ``(B, W, h/2, w/2)`` (rounded up; by
            ``level_strides``), and then, with ``dense_map``, a tuple of one map ``(B, D, h, w)`` in
            the joint space, fp32.

        Raises:
            ValueError: if a side is no multiple of the patch, or zero.
        """
        blocks, dense = self.encode(images, with_map=self.dense_map)
        levels = self.pyramid(blocks)
        return (*levels, (dense,)) if self.dense_map else levels

    def pyramid(self, blocks: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The three levels of the three blocks' maps ``(B, W, h, w)``."""
        first, second, third = map(self._resized, blocks, self.level_strides)
        return first, second, third

    def _resized(self, block: Tensor, stride: float) -> Tensor:
        if stride < 1:
            block = self.upsample(block)
        elif stride > 1:
            # ceil_mode changes nothing on an even grid, and loses no row of an odd one
            block = max_pool2d(block, int(stride), ceil_mode=True)
        return block

    @torch.no_grad()
    def query_embeddings(self, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Embeddings by which queries get their class, ``(n, D)`` unit vectors, fp32.

        Args:
            maps: Last output of :meth:`forward`.
            rois: ``(n, 5)``: number of the image, x0, y0, x1, y1 in pixels of the input.

        Returns:
            Zeros for a box that is wholly outside or has no area.
        """
        # cells have unit length already where they shall
        return region_embeddings(maps[0], rois, self.patch_size, "after")

    def score_embeddings(self, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Embeddings by which boxes are classified in the end: as :meth:`query_embeddings`."""
        return self.query_embeddings(maps, rois)
