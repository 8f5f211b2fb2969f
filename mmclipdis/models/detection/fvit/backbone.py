"""F-ViT's backbone: a frozen CLIP ViT, and trained up-samplers that make its blocks a pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmclipdis.models.detection.frozen_vit import FrozenViT


@MODELS.register_module()
class FViTBackbone(FrozenViT):
    """A pyramid of four levels of a frozen CLIP ViT, and its dense map in the joint space.

    =====  ======  ================================================================
    level  stride  made of
    =====  ======  ================================================================
    0      P / 4   block ``out_indices[0]``: ConvT, norm, GELU, ConvT
    1      P / 2   block ``out_indices[1]``: ConvT
    2      P       block ``out_indices[2]``, as it is
    3      2 P     last level, MaxPool (of an odd grid the last row and column, too)
    =====  ======  ================================================================

    ``P`` is the patch in pixels; ConvT is ``ConvTranspose2d(W, W, 2, stride=2)``. One pass of the
    encoder gives all of it. The encoder has no gradients and stays in evaluation mode; the
    up-samplers are trained.

    Args:
        encoder: Config of a :class:`~mmclipdis.models.backbones.CLIPViT` or one of its presets,
            EVA-02 or OpenAI-style, with ``arch``, ``readout``, ``positions``, ``any_readout``,
            ``init_cfg``. F-ViT with CLIPSelf reads ``'maskclip'``, with DeCLIP what the weights
            were distilled with.
        out_indices: The four blocks, 0-based, ascending; (3, 5, 7, 11) for B, (6, 10, 14, 23) for
            L. Negative counts from the end.
        level3: What the last level is: ``'readout'``, the patch tokens of the last block under the
            encoder's readout, before the final norm (F-ViT); or ``'vanilla'``, the output of block
            ``out_indices[3]`` as CLIP has it, which for a readout without residual stream and FFN
            (DeCLIP) has another scale.
        normalize: ``'before'``: the dense map is L2-normalised over its channels, thus before a RoI
            head pools it (F-ViT). ``'after'``: it is not, and the RoI head, which finds this choice
            in :attr:`normalize`, normalises what it has pooled (as DeCLIP distils).
        norm_cfg: Norm of level 0, of any kind that mmcv knows.
        dense_map: Whether :meth:`forward` returns the dense map, too. False for stock detectors
            and segmentors, whose necks take the four levels alone.

    Input of :meth:`forward`: ``(B, 3, H, W)`` RGB with a mean and std taken off (F-ViT: those of
    ImageNet, though CLIP was trained with its own), square or not; both sides multiples of ``P``.

    Raises:
        ValueError: for another kind of encoder, options of it that are decided here, or values that
            do not go together.

    Source: F-ViT (Wu et al., CLIPSelf, ICLR 2024). The official code takes square images only.
    """

    def __init__(
        self,
        encoder: Mapping[str, Any],
        out_indices: Sequence[int] = (3, 5, 7, 11),
        level3: str = "readout",
        normalize: str = "before",
        norm_cfg: Mapping[str, Any] | None = None,
        dense_map: bool = True,
    ) -> None:
        super().__init__(encoder, out_indices, level3, normalize, num_levels=4)
        self.dense_map = dense_map
        width = self.encoder.width
        _, norm = build_norm_layer(dict(norm_cfg or {"type": "SyncBN"}), width)
        # Names and places in the sequence are those of the released checkpoints.
        self.interpolate1 = nn.Sequential(_doubling(width), norm, nn.GELU(), _doubling(width))
        self.interpolate2 = nn.Sequential(_doubling(width))
        # ceil_mode changes nothing on an even grid, and loses no row of an odd one.
        self.pool = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.train(self.training)  # all but the encoder

    @property
    def strides(self) -> tuple[float, float, float, float]:
        """Pixels a location of the four levels; (3.5, 7, 14, 28) for patch 14."""
        patch = self.patch_size
        return patch / 4, patch / 2, float(patch), 2.0 * patch

    def forward(self, images: Tensor) -> tuple[Tensor | None, ...]:
        """The pyramid, and the dense map.

        Args:
            images: ``(B, 3, H, W)``; ``h x w`` are its patches.

        Returns:
            Maps ``(B, W, 4h, 4w)``, ``(B, W, 2h, 2w)``, ``(B, W, h, w)`` and ``(B, W, h/2, w/2)``
            (rounded up), and then, with ``dense_map``, ``(B, D, h, w)`` in the joint space, fp32 --
            or None while training, which has no use for it.

        Raises:
            ValueError: if a side is no multiple of the patch, or zero.
        """
        blocks, dense = self.encode(images, with_map=self.dense_map and not self.training)
        levels = self.pyramid(blocks)
        return (*levels, dense) if self.dense_map else levels

    def pyramid(self, blocks: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four levels of the four blocks' maps ``(B, W, h, w)``."""
        return (
            self.interpolate1(blocks[0]),
            self.interpolate2(blocks[1]),
            blocks[2],
            self.pool(blocks[3]),
        )


def _doubling(width: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)
