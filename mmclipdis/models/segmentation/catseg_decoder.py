"""Up-sampling decoder of CAT-Seg.

A stage of the reference is ``up = ConvTranspose(k2, s2)``, concatenation with image guidance, then
two ``Conv3x3 - GroupNorm - ReLU``. Between the transposed convolution and the first 3x3 there is no
non-linearity, so the two are composed here into one transposed convolution with kernel 4, stride 2,
padding 1 (weights combined at run time, gradients flow to both). The guidance half of the
first 3x3 and the part of the transposed convolution's bias are the same for all classes and are
computed once per image. All of this is exact; the parameters are those of the reference.

Source: CAT-Seg (CVPR 2024), section 3.3 and the released code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


class DecoderStage(nn.Module):
    """Doubles the resolution of every class map under the guidance of an image map.

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

    def guidance_term(self, guidance: Tensor) -> Tensor:
        """Share of image guidance and up-sampling bias in the first convolution.

        Args:
            guidance: ``(B, guidance_dim, 2h, 2w)``.

        Returns:
            ``(B, 1, out_dim, 2h, 2w)``, to be added to every class.
        """
        batch, _, height, width = guidance.shape
        if self.up.bias is None:
            raise ValueError("DecoderStage.up must have a bias.")
        bias = self.up.bias.view(1, -1, 1, 1).expand(batch, -1, height, width)
        return self.conv1(torch.cat([bias, guidance], dim=1)).unsqueeze(1)

    def forward(self, maps: Tensor, term: Tensor) -> Tensor:
        """Decode.

        Args:
            maps: Class maps ``(B T, in_dim, h, w)``, sorted by image.
            term: :meth:`guidance_term`.

        Returns:
            ``(B T, out_dim, 2h, 2w)``.
        """
        weight = compose_up_conv(self.up.weight, self.conv1.weight[:, : self.up.out_channels])
        x = F.conv_transpose2d(maps, weight, stride=2, padding=1)
        x = (x.unflatten(0, (term.shape[0], -1)) + term).flatten(0, 1)
        x = self.conv2(F.relu(self.norm1(x), inplace=True))
        return F.relu(self.norm2(x), inplace=True)


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

    def guidance_terms(self, guidance: Sequence[Tensor]) -> list[Tensor]:
        """:meth:`DecoderStage.guidance_term` of every stage."""
        stages = cast(list[DecoderStage], self.stages)
        return [stage.guidance_term(g) for stage, g in zip(stages, guidance, strict=True)]

    def forward(self, maps: Tensor, terms: Sequence[Tensor]) -> Tensor:
        """Decode class maps.

        Args:
            maps: ``(B T, dim, h, w)``, sorted by image.
            terms: :meth:`guidance_terms`.

        Returns:
            Logits ``(B T, 1, 2^n h, 2^n w)`` after n stages.
        """
        for stage, term in zip(self.stages, terms, strict=True):
            maps = stage(maps, term)
        return self.head(maps)
