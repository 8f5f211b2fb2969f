"""Losses as modules that a config can name; the mathematics is in :mod:`mmclipdis.losses`."""

from __future__ import annotations

from mmengine.registry import MODELS
from torch import Tensor, nn

from mmclipdis.losses.sigmoid_bce import gathered_bce


@MODELS.register_module()
class GatheredBCELoss(nn.Module):
    """:func:`~mmclipdis.losses.sigmoid_bce.gathered_bce` times ``loss_weight``.

    Args:
        ignore_as_negative: Whether ignored pixels are negatives of every class (CAT-Seg) or left
            out.
        class_chunk: Classes whose logits are at the size of the labels at the same time.
        loss_weight: Factor.
        loss_name: Key in the log; must contain ``loss`` to be optimised.
    """

    resizes_logits = True  # CATSegHead hands them over as they are

    def __init__(
        self,
        ignore_as_negative: bool = True,
        class_chunk: int | None = 32,
        loss_weight: float = 1.0,
        loss_name: str = "loss_bce",
    ) -> None:
        super().__init__()
        if "loss" not in loss_name:
            raise ValueError(f"loss_name must contain 'loss', got {loss_name!r}.")
        self.ignore_as_negative = ignore_as_negative
        self.class_chunk = class_chunk
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(self, logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
        """``logits`` (B, T, h, w), ``labels`` (B, H, W) -> scalar."""
        return self.loss_weight * gathered_bce(
            logits,
            labels,
            ignore_index=ignore_index,
            ignore_as_negative=self.ignore_as_negative,
            class_chunk=self.class_chunk,
        )
