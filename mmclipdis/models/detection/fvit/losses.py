"""The classification loss of F-ViT as a module that a config can name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmclipdis.clip.text.vocabulary import novel_flags
from mmclipdis.losses.masked_cross_entropy import (
    masked_cross_entropy,
    novel_class_weight,
)
from mmclipdis.losses.reductions import Reduction, check_reduction
from mmclipdis.models.stock_heads import head_that_builds, refuse

#: Dense heads of mmdet that give their loss qualities of boxes, maps or one-hot labels, or that
#: never call it.
_OF_OTHER_TARGETS = (
    *("AutoAssignHead", "CenterNetHead", "CenterNetUpdateHead", "CornerHead"),
    *("FreeAnchorRetinaHead", "GFLHead", "RTMDetHead", "TOODHead", "VFNetHead"),
    *("YOLOV3Head", "YOLOXHead"),
)


@MODELS.register_module()
class NovelMaskedCrossEntropyLoss(nn.Module):
    """:func:`~mmclipdis.losses.masked_cross_entropy.masked_cross_entropy` times ``loss_weight``.

    It is called as mmdet's ``CrossEntropyLoss``, thus any box or dense head of mmdet with a softmax
    over the classes and the background can have it as ``loss_cls``. The weights of the classes
    follow from which of them are novel: a ``FViTBBoxHead`` says so, and for other heads the config
    does.

    Args:
        bg_weight: Weight of the background, the last column: 0.6 on OV-COCO, 0.9 on OV-LVIS.
        classes: Names of the K classes in the order of the labels; only with ``novel_classes``.
        novel_classes: Names of those that are novel.
        class_weight: The K + 1 weights themselves, the background's last, in place of all above.
        loss_weight: Factor.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        use_sigmoid: False, as mmdet's configs may say.

    Raises:
        ValueError: ``use_sigmoid=True``, no such reduction, built by a head that it does not fit,
            weights beside names, one of the two lists of names alone, a novel class that is no
            class, or a background that weighs nothing.
    """

    def __init__(
        self,
        bg_weight: float | None = None,
        classes: Sequence[str] | None = None,
        novel_classes: Sequence[str] | None = None,
        class_weight: Sequence[float] | None = None,
        loss_weight: float = 1.0,
        reduction: Reduction = "mean",
        use_sigmoid: bool = False,
    ) -> None:
        super().__init__()
        if use_sigmoid:
            raise ValueError(
                "NovelMaskedCrossEntropyLoss is a softmax over the classes and the background: set "
                "use_sigmoid=False, or take CrossEntropyLoss for a sigmoid"
            )
        check_reduction(reduction)
        self.use_sigmoid = use_sigmoid  # DETRHead and its kind ask for it
        named = classes is not None or novel_classes is not None
        if class_weight is not None and (named or bg_weight is not None):
            raise ValueError("class_weight holds all weights: leave names and bg_weight out")
        if (classes is None) != (novel_classes is None):
            raise ValueError("classes and novel_classes belong together: give both or none")
        self.bg_weight = 0.6 if bg_weight is None else bg_weight
        self.fixed = class_weight is not None or named
        self.loss_weight = loss_weight
        self.reduction = reduction
        self.class_weight: Tensor | None = None
        if class_weight is not None:
            self.class_weight = torch.as_tensor(class_weight, dtype=torch.float32)
        elif classes is not None and novel_classes is not None:
            self.class_weight = novel_class_weight(
                novel_flags(classes, novel_classes), self.bg_weight
            )
        else:
            novel_class_weight((), self.bg_weight)  # a bad weight is found here, not in training
        self._check_head()

    def _check_head(self) -> None:
        """Refuse a stock head with other scores, without flags, or with other classes."""
        fits = (
            "mmdet's box and dense heads with a softmax (use_sigmoid=False), such as "
            "Shared2FCBBoxHead, and for FViTBBoxHead"
        )
        head = head_that_builds(self, fits, ("mmdet",))
        if head is None:
            return
        kinds = {kind.__name__ for kind in type(head).__mro__}
        if not kinds & {"BBoxHead", "BaseDenseHead", "DETRHead"}:
            refuse(self, head, "which has no scores of classes and background", fits)
        if kinds & set(_OF_OTHER_TARGETS):
            refuse(self, head, "which does not call it with scores and numbers of classes", fits)
        if hasattr(head, "set_novel"):
            return
        if self.class_weight is None:
            reason = "which does not say which classes are novel: give classes and novel_classes"
            refuse(self, head, f"{reason} (or class_weight)", fits)
        known = getattr(head, "num_classes", None)
        if known is not None and self.class_weight is not None:
            given = len(self.class_weight) - 1
            if given != known:
                refuse(self, head, f"which has {known} classes and not {given}", fits)

    def set_novel(self, novel: Sequence[bool] | None) -> None:
        """Say which of the K classes are novel; None: not known. Weights of the config stay."""
        if self.fixed:
            return
        self.class_weight = None if novel is None else novel_class_weight(novel, self.bg_weight)

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: Reduction | None = None,
    ) -> Tensor:
        """Logits (n, K + 1) and labels (n,), K for the background, -> scalar or (n,).

        Args:
            cls_score: Logits.
            label: Class numbers.
            weight: Factors of the samples (n,).
            avg_factor: What the sum is divided by for ``"mean"``.
            reduction_override: Reduction of this call.

        Raises:
            RuntimeError: it is not known which classes are novel.
            ValueError: as ``masked_cross_entropy``.
        """
        if self.class_weight is None:
            raise RuntimeError(
                "which classes are novel? Set metainfo=dict(novel_classes=...) on the data set "
                "(and run with VocabularyHook), novel_classes=... on the box head (() if none is), "
                "or class_weight=... on NovelMaskedCrossEntropyLoss"
            )
        self.class_weight = self.class_weight.to(cls_score.device)
        return self.loss_weight * masked_cross_entropy(
            cls_score,
            label,
            self.class_weight,
            avg_factor,
            sample_weight=weight,
            reduction=reduction_override or self.reduction,
        )
