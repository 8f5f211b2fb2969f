"""Losses as modules that a config can name; the mathematics is in :mod:`mmclipdis.losses`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmclipdis.losses.asymmetric import asymmetric_loss, check_asymmetric_options
from mmclipdis.losses.content import content_loss
from mmclipdis.losses.context_correlation import context_correlation_loss
from mmclipdis.losses.mfi import Axis, Center, NormalizeBy, check_mfi_options, mfi_loss
from mmclipdis.losses.reductions import Reduction, check_reduction
from mmclipdis.losses.sigmoid_bce import gathered_bce
from mmclipdis.models.stock_heads import head_that_builds, refuse


@MODELS.register_module()
class GatheredBCELoss(nn.Module):
    """:func:`~mmclipdis.losses.sigmoid_bce.gathered_bce` times ``loss_weight``.

    For a :class:`~mmclipdis.models.segmentation.catseg.head.CATSegHead`, and as ``loss_decode`` of
    mmseg's decode heads, in place of ``CrossEntropyLoss(use_sigmoid=True)``.

    Args:
        ignore_as_negative: Whether ignored pixels are negatives of every class (CAT-Seg) or left
            out; the others are then counted over all ranks.
        class_chunk: Classes whose logits are at the size of the labels at the same time.
        loss_weight: Factor.
        loss_name: Key in the log; must contain ``loss`` to be optimised.
        use_sigmoid: True, as mmseg's configs may say.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, which gives (B, H, W).

    Raises:
        ValueError: ``use_sigmoid=False``, no such reduction, or a head builds it that it does not
            fit.
    """

    resizes_logits = True  # CATSegHead hands them over as they are

    def __init__(
        self,
        ignore_as_negative: bool = True,
        class_chunk: int | None = 32,
        loss_weight: float = 1.0,
        loss_name: str = "loss_bce",
        use_sigmoid: bool = True,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        fits = "CATSegHead and mmseg's decode heads with a channel a class (out_channels)"
        head = head_that_builds(self, fits, ("mmseg",))
        if getattr(head, "out_channels", None) == 1:
            refuse(self, head, "which has one channel for two classes", fits)
        if not use_sigmoid:
            raise ValueError(
                "GatheredBCELoss is a sigmoid loss: set use_sigmoid=True (mmseg's configs hand on "
                "False), or take CrossEntropyLoss for a softmax"
            )
        check_reduction(reduction)
        self.use_sigmoid = use_sigmoid
        self.reduction = reduction
        self.ignore_as_negative = ignore_as_negative
        self.class_chunk = class_chunk
        self.loss_weight = loss_weight
        self.loss_name = _checked_name(loss_name)

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: Reduction | None = None,
        ignore_index: int = 255,
    ) -> Tensor:
        """``logits`` (B, T, h, w), ``labels`` (B, H, W) -> scalar, or (B, H, W) for ``"none"``.

        Args:
            logits: Not probabilities.
            labels: Class numbers.
            weight: Factors of the pixels (B, H, W).
            avg_factor: Divides the sum over pixels and classes in place of their number.
            reduction_override: Reduction of this call.
            ignore_index: Label of pixels without class.
        """
        return self.loss_weight * gathered_bce(
            logits,
            labels,
            ignore_index=ignore_index,
            ignore_as_negative=self.ignore_as_negative,
            class_chunk=self.class_chunk,
            weight=weight,
            avg_factor=avg_factor,
            reduction=reduction_override or self.reduction,
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
        head_that_builds(self, "DeCLIP.content_loss, which compares region features")
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
        head_that_builds(self, "DeCLIP.context_loss, which compares maps of two models")
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


@MODELS.register_module()
class MFILoss(nn.Module):
    """Weighted :func:`~mmclipdis.losses.mfi.mfi_loss` of all class texts or of a part of them.

    The texts are the same on every rank of a distributed run, and so is the loss: nothing is
    gathered.

    Args:
        axis: Gram matrix over ``"feature"`` dimensions (the paper's appendix A.5) or over the
            rows, ``"class"`` (its section 3).
        rows: ``"all"`` together, only the ``"pos"`` ones, or ``"posneg"``: positive and negative
            ones in two matrices of their own, whose losses are added.
        lam: Weight of the off-diagonal entries; 0.2 in the paper.
        center: ``"bn"`` is blind to what all classes share; for comparison only.
        normalize_by: ``"rows"`` divides the matrix by the number of its rows.
        loss_weight: Factor; the default goes with an asymmetric loss that is summed (times 0.05).
        loss_name: Key in the log; must contain ``loss`` to be optimised.
    """

    def __init__(
        self,
        axis: Axis = "feature",
        rows: Literal["all", "pos", "posneg"] = "all",
        lam: float = 0.2,
        center: Center = "none",
        normalize_by: NormalizeBy = "none",
        loss_weight: float = 7e-5,
        loss_name: str = "loss_mfi",
    ) -> None:
        super().__init__()
        head_that_builds(self, "DCLIP.mfi, which hands over projected texts")
        check_mfi_options(axis, lam, center, normalize_by)
        if rows not in ("all", "pos", "posneg"):
            raise ValueError(f"rows must be one of all, pos, posneg, got {rows!r}.")
        self.axis = axis
        self.rows = rows
        self.lam = lam
        self.center = center
        self.normalize_by = normalize_by
        self.loss_weight = loss_weight
        self.loss_name = _checked_name(loss_name)

    def forward(self, text: Tensor) -> Tensor:
        """Projected texts (2N, D), the negative ones first, -> scalar.

        With ``rows="all"`` any number of rows will do.

        Raises:
            ValueError: An odd number of rows where they have to be halved.
        """
        if self.rows != "all" and len(text) % 2:
            raise ValueError(
                f"rows={self.rows!r} needs as many negative as positive texts, got {len(text)} "
                "rows; use rows='all'."
            )
        half = len(text) // 2
        parts = {"all": [text], "pos": [text[half:]], "posneg": [text[:half], text[half:]]}
        losses = [
            mfi_loss(part, self.axis, self.lam, self.center, self.normalize_by)
            for part in parts[self.rows]
        ]
        return self.loss_weight * sum(losses[1:], losses[0])


@MODELS.register_module()
class AsymmetricLoss(nn.Module):
    """Weighted :func:`~mmclipdis.losses.asymmetric.asymmetric_loss`.

    It takes the call of mmpretrain's ``MultiLabelClsHead``, too. There, write
    ``loss=dict(type='mmengine.AsymmetricLoss', reduction='mean')``: without ``mmengine.`` it is
    mmpretrain's own, which knows no unknown labels. mmpretrain divides by the images of a batch
    (``avg_factor``), which ``reduction='sum'`` does not do and says once.

    Args:
        gamma_pos: Exponent of the focusing factor of present classes.
        gamma_neg: That of absent classes. (mmpretrain's default is 4.)
        clip: Probability below which an absent class costs nothing.
        detach_focusing: Whether no gradient flows through the focusing factors. (In mmpretrain's
            it does.)
        eps: Lower limit inside the logarithms; None for stable logarithms without limit.
        reduction: ``"sum"``, ``"mean"`` over the known labels, or ``"none"``.
        across_ranks: Whether sum and mean are those of the joint batch of all ranks.
        loss_weight: Factor. DCLIP's logs have 0.05, together with the sum.
        loss_name: Key in the log; must contain ``loss`` to be optimised.
    """

    def __init__(
        self,
        gamma_pos: float = 1.0,
        gamma_neg: float = 2.0,
        clip: float = 0.05,
        detach_focusing: bool = True,
        eps: float | None = None,
        reduction: Reduction = "sum",
        across_ranks: bool = True,
        loss_weight: float = 1.0,
        loss_name: str = "loss_asl",
    ) -> None:
        super().__init__()
        fits = (
            "DCLIP.asl and mmpretrain's MultiLabelClsHead, whose labels are 0 or 1 for each class"
        )
        head_that_builds(self, fits, ("mmpretrain",))
        check_asymmetric_options(gamma_pos, gamma_neg, clip, eps, reduction)
        self.gamma_pos = gamma_pos
        self.gamma_neg = gamma_neg
        self.clip = clip
        self.detach_focusing = detach_focusing
        self.eps = eps
        self.reduction = reduction
        self.across_ranks = across_ranks
        self.loss_weight = loss_weight
        self.loss_name = _checked_name(loss_name)
        self._said_that_a_sum_is_a_sum = False

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: Reduction | None = None,
    ) -> Tensor:
        """Logits and labels in {0, 1, -1}, both (B, N), -> scalar, or (B, N) for ``"none"``.

        Args:
            logits: z, the logarithm of the odds; not probabilities.
            target: 1 present, 0 absent, -1 unknown.
            weight: Factors of images (B,) or labels (B, N).
            avg_factor: Divides the sum in place of the number of known labels where the reduction
                is ``"mean"``, as it is: in a distributed run hand over the mean over the ranks. A
                sum is not divided; the first time a warning says so.
            reduction_override: Reduction of this call.

        Raises:
            ValueError: See :func:`~mmclipdis.losses.asymmetric.asymmetric_loss`.
        """
        reduction = self.reduction if reduction_override is None else reduction_override
        if avg_factor is not None and reduction == "sum" and not self._said_that_a_sum_is_a_sum:
            self._said_that_a_sum_is_a_sum = True
            print_log(
                f"AsymmetricLoss: reduction='sum' leaves avg_factor={avg_factor} aside; set "
                "reduction='mean' to divide by it.",
                logger="current",
                level=logging.WARNING,
            )
        return self.loss_weight * asymmetric_loss(
            logits,
            target,
            self.gamma_pos,
            self.gamma_neg,
            self.clip,
            self.detach_focusing,
            self.eps,
            reduction,
            weight=weight,
            avg_factor=avg_factor,
            across_ranks=self.across_ranks,
        )


def _checked_name(loss_name: str) -> str:
    if "loss" not in loss_name:
        raise ValueError(f"loss_name must contain 'loss', got {loss_name!r}.")
    return loss_name
