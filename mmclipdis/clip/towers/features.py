"""What a dense tower returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class DenseFeatures:
    """Dense features of a batch of images; only what was asked for is computed.

    Attributes:
        map: ``(B, E, h, w)`` patch tokens in the joint image-text space, *not* normalised.
        cls: ``(B, E)`` image embedding, equal to CLIP's ``encode_image``; None unless asked.
        context: The asked ones of ``q``, ``k``, ``v``: ``(B, D, h, w)`` projections of the last
            block after the bias, before scaling, heads concatenated (DeCLIP's context features).
        intermediates: ``(B, D, h, w)`` outputs of the asked blocks, in the order asked.
        mean_token: ``(B, E)`` the mean token of a CLIP ResNet's attention pool, read out like the
            map (DCLIP pools over it, too); None for a ViT, which has none, or where not asked.
        tokens: ``(B, D, h, w)`` patch tokens under the readout, before the final norm and the
            projection that make them ``map`` (F-ViT's last level); None unless asked.
    """

    map: Tensor
    cls: Tensor | None = None
    context: dict[str, Tensor] = field(default_factory=dict)
    intermediates: tuple[Tensor, ...] = ()
    mean_token: Tensor | None = None
    tokens: Tensor | None = None


def tokens_to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Reshape row-major patch tokens ``(B, h*w, D)`` to a map ``(B, D, h, w)``.

    Its memory is laid out like that of any map, since convolutions hand on the layout of what they
    are given, and mmcv's compiled ops (RoIAlign among them) read memory without looking at strides.
    """
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *grid).contiguous()
