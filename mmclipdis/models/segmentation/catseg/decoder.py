"""Up-sampling decoder of CAT-Seg.

A stage of the reference is ``up = ConvTranspose(k2, s2)``, concatenation with image guidance, then
two ``Conv3x3 - GroupNorm - ReLU``. Between the transposed convolution and the first 3x3 there is no
non-linearity, so the two are composed here into one transposed convolution with kernel 4, stride 2,
padding 1 (weights combined in every forward pass, gradients flow to both). The guidance half of the
first 3x3 and the part of the transposed convolution's bias are the same for all classes and are
computed once per image. All of this is exact; the parameters are those of the reference.

Source: CAT-Seg (CVPR 2024), section 3.3 and the released code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmclipdis.models.segmentation.catseg.common import recomputed


def _group_norm(channels: int) -> nn.GroupNorm:
    groups = max(1, channels // 16)
    if channels % groups:
        raise ValueError(f"decoder_dims must be multiples of 16 (or of dim // 16), got {channels}.")
    return nn.GroupNorm(groups, channels)


def compose_up_conv(up: Tensor, conv: Tensor) -> Tensor:
    """Weight of ``Conv3x3(padding 1) o ConvTranspose(k2, s2)`` as one transposed convolution.

    ``K[m] = sum_{a - d + 2 = m} up[a] conv[d]`` per axis.

    Args:
        up: ``(in, mid, 2, 2)``.
        conv: ``(out, mid, 3, 3)``.

    Returns:
        ``(in, out, 4, 4)``, to be used with stride 2 and padding 1.
    """
    return F.conv2d(up, conv, padding=2)


class StageInput(NamedTuple):
    """What a stage needs besides the class maps; the same for all classes.

    Attributes:
        weight: Composed weight, see :func:`compose_up_conv`.
        term: Share of image guidance and up-sampling bias in the first convolution,
            ``(B, 1, out_dim, 2h, 2w)``.
    """

    weight: Tensor
    term: Tensor


class DecoderStage(nn.Module):
    """Doubles the resolution of every class map under the guidance of an image map.

    The second convolution, the normalisations and ReLUs are applied by :class:`Decoder`.

    Args:
        in_dim: Channels of the incoming class maps.
        guidance_dim: Channels of the projected guidance; must be smaller than ``in_dim``.
        out_dim: Channels of the outgoing class maps.
    """

    def __init__(self, in_dim: int, guidance_dim: int, out_dim: int) -> None:
        super().__init__()
        if not 0 < guidance_dim < in_dim:
            raise ValueError(
                f"A decoder stage with {in_dim} input channels needs a guidance of 1 to "
                f"{in_dim - 1} channels, got {guidance_dim}."
            )
        self.up = nn.ConvTranspose2d(in_dim, in_dim - guidance_dim, 2, stride=2)
        self.conv1 = nn.Conv2d(in_dim, out_dim, 3, padding=1, bias=False)
        self.norm1 = _group_norm(out_dim)
        self.conv2 = nn.Conv2d(out_dim, out_dim, 3, padding=1, bias=False)
        self.norm2 = _group_norm(out_dim)

    def prepare(self, guidance: Tensor) -> StageInput:
        """All that is the same for every class.

        Args:
            guidance: ``(B, guidance_dim, 2h, 2w)``.
        """
        batch, _, height, width = guidance.shape
        bias = cast(Tensor, self.up.bias).view(1, -1, 1, 1).expand(batch, -1, height, width)
        return StageInput(
            weight=compose_up_conv(self.up.weight, self.conv1.weight[:, : self.up.out_channels]),
            term=self.conv1(torch.cat([bias, guidance], dim=1)).unsqueeze(1),
        )

    @staticmethod
    def enter(maps: Tensor, shared: StageInput) -> Tensor:
        """Up-sampling and first 3x3: ``(B T, in_dim, h, w)`` -> ``(B T, out_dim, 2h, 2w)``."""
        x = F.conv_transpose2d(maps, shared.weight, stride=2, padding=1)
        return (x.unflatten(0, (shared.term.shape[0], -1)) + shared.term).flatten(0, 1)


class Decoder(nn.Module):
    """Stages, then a 3x3 convolution to one logit per class.

    Args:
        dim: Channels of the aggregated class maps.
        guidance_dims: Channels of the projected guidance of each stage.
        decoder_dims: Output channels of each stage.
    """

    def __init__(self, dim: int, guidance_dims: Sequence[int], decoder_dims: Sequence[int]) -> None:
        super().__init__()
        in_dims = (dim, *decoder_dims[:-1])
        self.stages = nn.ModuleList(
            DecoderStage(*dims) for dims in zip(in_dims, guidance_dims, decoder_dims, strict=True)
        )
        self.head = nn.Conv2d(decoder_dims[-1], 1, 3, padding=1)

    def prepare(self, guidance: Sequence[Tensor]) -> list[StageInput]:
        """:meth:`DecoderStage.prepare` of every stage."""
        stages = cast(list[DecoderStage], self.stages)
        return [stage.prepare(g) for stage, g in zip(stages, guidance, strict=True)]

    def forward(
        self, maps: Tensor, shared: Sequence[StageInput], recompute: bool = False
    ) -> Tensor:
        """Decode class maps.

        Args:
            maps: ``(B T, dim, h, w)``, sorted by image.
            shared: :meth:`prepare`.
            recompute: Recompute the normalised maps in the backward pass, from the outputs of the
                convolutions, which are kept.

        Returns:
            Logits ``(B T, 1, 2^n h, 2^n w)`` after n stages.
        """
        stages = cast(list[DecoderStage], self.stages)
        following = [partial(DecoderStage.enter, shared=item) for item in shared[1:]]
        maps = DecoderStage.enter(maps, shared[0])
        for stage, follow in zip(stages, [*following, self.head], strict=True):
            maps = recomputed(_activated, maps, stage.norm1, stage.conv2, when=recompute)
            maps = recomputed(_activated, maps, stage.norm2, follow, when=recompute)
        return maps


def _activated(maps: Tensor, norm: nn.Module, then: Callable[[Tensor], Tensor]) -> Tensor:
    return then(F.relu(norm(maps), inplace=True))
