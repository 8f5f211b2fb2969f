"""F-ViT's backbone: a frozen CLIP ViT, and trained up-samplers that make its blocks a pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmclipdis.models.backbones import CLIPViT

#: Options of the encoder that the backbone decides itself.
_OWN_OPTIONS = ("out_indices", "trainable", "normalize", "grad_checkpointing")


@MODELS.register_module()
class FViTBackbone(BaseModule):
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
        super().__init__()
        _check_choice("level3", level3, ("readout", "vanilla"))
        _check_choice("normalize", normalize, ("before", "after"))
        self.encoder = _build_encoder(encoder)
        self.out_indices = _checked_blocks(out_indices, self.encoder.num_blocks, level3)
        self.level3 = level3
        self.normalize = normalize
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
    def width(self) -> int:
        """Channels ``W`` of each of the four levels."""
        return self.encoder.width

    @property
    def embed_dim(self) -> int:
        """Channels ``D`` of the dense map."""
        return self.encoder.embed_dim

    @property
    def patch_size(self) -> int:
        """Pixels a side of a patch, which is the stride of the dense map."""
        return self.encoder.patch_size[0]

    @property
    def strides(self) -> tuple[float, float, float, float]:
        """Pixels a location of the four levels; (3.5, 7, 14, 28) for patch 14."""
        patch = self.patch_size
        return patch / 4, patch / 2, float(patch), 2.0 * patch

    def train(self, mode: bool = True) -> FViTBackbone:
        """As always, but the encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

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
        self._check_size(images)
        blocks, dense = self._encode(images)
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

    @torch.no_grad()
    def _encode(self, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """The four maps ``(B, W, h, w)`` and, if somebody wants it, the dense map."""
        tower = self.encoder.tower
        from_readout = self.level3 == "readout"
        wants_map = self.dense_map and not self.training
        if not (from_readout or wants_map):
            return tower.forward_blocks(images, self.out_indices), None
        asked = self.out_indices[:-1] if from_readout else self.out_indices
        # Of the tower itself: presets such as DeCLIPViT normalise their map.
        features = tower.forward_dense(
            images, self.encoder.readout, intermediates=asked, with_tokens=from_readout
        )
        blocks = features.intermediates
        if from_readout:
            blocks = (*blocks, features.tokens)
        return blocks, self._joint_map(features.map) if wants_map else None

    def _joint_map(self, dense: Tensor) -> Tensor:
        # Regions are pooled and compared with text in fp32, under autocast too.
        dense = dense.float()
        return F.normalize(dense, dim=1) if self.normalize == "before" else dense

    def _check_size(self, images: Tensor) -> None:
        height, width = images.shape[-2:]
        patch = self.patch_size
        if height < patch or width < patch or height % patch or width % patch:
            raise ValueError(
                f"FViTBackbone got images of {height} x {width} px, whose sides are no multiples "
                f"of its patch of {patch} px; set pad_size_divisor of the data_preprocessor to a "
                f"multiple of {patch} (F-ViT: to the image size, so that all images are square)"
            )


def _doubling(width: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)


def _check_choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"FViTBackbone.{name} must be one of {', '.join(known)}, got {value!r}")


def _build_encoder(config: Mapping[str, Any]) -> CLIPViT:
    taken = [name for name in _OWN_OPTIONS if name in config]
    if taken:
        raise ValueError(
            f"FViTBackbone.encoder must not set {', '.join(taken)}: the encoder is frozen, and the "
            "backbone has out_indices and normalize of its own; remove them"
        )
    encoder = MODELS.build(dict(config))  # frozen, as no CLIPViT trains unless it is told to
    if not isinstance(encoder, CLIPViT):
        raise ValueError(
            f"FViTBackbone.encoder is a {type(encoder).__name__}, which has no transformer blocks; "
            "take a CLIPViT or one of its presets such as DeCLIPViT"
        )
    if encoder.patch_size[0] != encoder.patch_size[1]:
        raise ValueError(
            f"FViTBackbone.encoder has patches of {encoder.patch_size} px; they must be square"
        )
    return encoder


def _checked_blocks(indices: Sequence[int], depth: int, level3: str) -> tuple[int, ...]:
    """The four blocks, counted from the first one."""
    given = f"FViTBackbone.out_indices={tuple(indices)}"
    wrong = [index for index in indices if not -depth <= index < depth]
    if wrong:
        raise ValueError(f"{given}: the encoder has {depth} blocks, there is no {wrong[0]}")
    blocks = tuple(index % depth for index in indices)
    if len(blocks) != 4 or list(blocks) != sorted(set(blocks)):
        raise ValueError(f"{given}: name four blocks in ascending order")
    if level3 == "readout" and blocks[-1] != depth - 1:
        raise ValueError(
            f"{given}: level3='readout' reads the last block, {depth - 1}; end with it (F-ViT: "
            "(3, 5, 7, 11) for ViT-B, (6, 10, 14, 23) for ViT-L), or set level3='vanilla'"
        )
    return blocks
