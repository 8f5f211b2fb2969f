"""CAT-Seg's decode head: guidance up-sampling, cost aggregation and loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmclipdis.clip.towers.features import DenseFeatures
from mmclipdis.models.segmentation.catseg.aggregator import CATSegAggregator
from mmclipdis.models.segmentation.labels import joint_count


@MODELS.register_module()
class CATSegHead(BaseModule):
    """Logits of every class from dense image features and class embeddings.

    Args:
        embed_dim: Channels of the joint space; :class:`CATSeg` fills in its encoder's.
        width: Channels of the encoder's intermediate maps; filled in likewise.
        guidance_dims: Channels of the up-sampled intermediate maps; the i-th (shallowest first) is
            up-sampled ``2^(i+1)`` times by a transposed convolution and guides decoder stage i.
        aggregator: Options of
            :class:`~mmclipdis.models.segmentation.catseg.aggregator.CATSegAggregator`.
        loss: Config of the loss, called as ``loss(logits, labels, ignore_index=...)``: ours, or
            one of mmseg.
        ignore_index: Label of pixels without class.
        init_cfg: As in mmengine.
    """

    #: No result without trained weights (see ``check_trained``).
    needs_checkpoint = True
    #: Any; mmseg's ``init_model`` asks heads for it.
    num_classes: int | None = None

    def __init__(
        self,
        embed_dim: int = 512,
        width: int = 768,
        guidance_dims: Sequence[int] = (256, 128),
        aggregator: Mapping[str, Any] | None = None,
        loss: Mapping[str, Any] | None = None,
        ignore_index: int = 255,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg=dict(init_cfg) if init_cfg else None)
        self.embed_dim, self.width = embed_dim, width
        self.ignore_index = ignore_index
        self.aggregator = CATSegAggregator(
            embed_dim=embed_dim, guidance_dims=tuple(guidance_dims), **dict(aggregator or {})
        )
        self.guidance_up = nn.ModuleList(
            nn.ConvTranspose2d(width, dim, kernel_size=2**i, stride=2**i)
            for i, dim in enumerate(guidance_dims, start=1)
        )
        self.loss_decode = MODELS.build(dict(loss or {"type": "GatheredBCELoss"}))

    def forward(self, features: DenseFeatures, text: Tensor) -> Tensor:
        """Logits at four times the grid of the image features (with two decoder stages).

        Args:
            features: ``map`` (B, embed_dim, h, w), and ``intermediates`` (B, width, h, w) for
                every guidance map, shallowest first.
            text: Class embeddings ``(T, embed_dim)``.

        Returns:
            ``(B, T, 4h, 4w)``.

        Raises:
            ValueError: Not as many intermediates as guidance maps.
        """
        if len(features.intermediates) != len(self.guidance_up):
            raise ValueError(
                f"CATSegHead needs {len(self.guidance_up)} intermediate maps, got "
                f"{len(features.intermediates)}; guidance_indices of CATSeg and guidance_dims of "
                "the head must have the same length."
            )
        guidance = [
            up(maps) for up, maps in zip(self.guidance_up, features.intermediates, strict=True)
        ]
        logits: Tensor = self.aggregator(features.map, text, guidance)
        return logits

    def loss(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Loss at label resolution.

        Args:
            logits: ``(B, T, h, w)``. Unless the loss resizes them by itself, a few classes at a
                time (``resizes_logits``), they are upsampled here (bilinear, half-pixel centres).
            labels: ``(B, H, W)``.
        """
        if not getattr(self.loss_decode, "resizes_logits", False):
            logits = F.interpolate(
                logits.float() if logits.dtype.itemsize < 4 else logits,
                size=labels.shape[-2:],
                mode="bilinear",
                align_corners=False,
            )
        counted = joint_count(self.loss_decode, labels, logits.shape[1], self.ignore_index)
        value = self.loss_decode(logits, labels, ignore_index=self.ignore_index, **counted)
        return {self.loss_decode.loss_name: value}
