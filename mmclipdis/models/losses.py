"""Losses as modules that a config can name; the mathematics is in :mod:`mmclipdis.losses`."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.registry import MODELS
from torch import Tensor, nn

from mmclipdis.losses.content import content_loss
from mmclipdis.losses.context_correlation import context_correlation_loss
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
        self.ignore_as_negative = ignore_as_negative
        self.class_chunk = class_chunk
        self.loss_weight = loss_weight
        self.loss_name = _checked_name(loss_name)

    def forward(self, logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
        """``logits`` (B, T, h, w), ``labels`` (B, H, W) -> scalar."""
        return self.loss_weight * gathered_bce(
            logits,
            labels,
            ignore_index=ignore_index,
            ignore_as_negative=self.ignore_as_negative,
            class_chunk=self.class_chunk,
        )


@MODELS.register_module()
class ContentLoss(nn.Module):
    """:func:`~mmclipdis.losses.content.content_loss` times ``loss_weight``.

    Args:
        loss_weight: Factor. DeCLIP's scripts use 1, its released ``csa`` weights 2.
        loss_name: Key in the log; must contain ``loss`` to be optimised.
    """

    def __init__(self, loss_weight: float = 1.0, loss_name: str = "loss_content") -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.loss_name = _checked_name(loss_name)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Region features and crop embeddings, both (M, D) -> scalar."""
        return self.loss_weight * content_loss(student, teacher)


@MODELS.register_module()
class ContextCorrelationLoss(nn.Module):
    """Weighted :func:`~mmclipdis.losses.context_correlation.context_correlation_loss`.

    Args:
        loss_weight: Factor. DeCLIP's paper uses 0.25, its scripts 0.1, its released ``csa``
            weights 0.05; the loss grows with the square root of the number of tokens.
        chunk: Rows of the correlation matrices at a time; more take more memory.
        loss_name: Key in the log; must contain ``loss`` to be optimised.
    """

    def __init__(
        self,
        loss_weight: float = 0.25,
        chunk: int = 256,
        loss_name: str = "loss_context",
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.chunk = chunk
        self.loss_name = _checked_name(loss_name)

    def forward(
        self,
        student: Tensor | Sequence[Tensor],
        teacher: Tensor | Sequence[Tensor],
        weights: Sequence[float] | None = None,
    ) -> Tensor:
        """Maps (B, C, h, w), one or several for each side, and the teachers' weights -> scalar."""
        return self.loss_weight * context_correlation_loss(student, teacher, weights, self.chunk)


def _checked_name(loss_name: str) -> str:
    if "loss" not in loss_name:
        raise ValueError(f"loss_name must contain 'loss', got {loss_name!r}.")
    return loss_name
