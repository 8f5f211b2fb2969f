"""Test-time augmentation for models whose scores are probabilities already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors import SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmclipdis.models.asked_names import asked_names
from mmclipdis.models.segmentation.cosine_head import CosineSegHead
from mmclipdis.models.segmentation.prediction import LabelRule, labels_from_probabilities
from mmclipdis.models.segmentation.refining import refine_labels
from mmclipdis.models.segmentation.samples import kept_masks


@MODELS.register_module()
class OpenVocabTTAModel(SegTTAModel):
    """Mean of the class probabilities of all views, labelled by the rule of a single view.

    ``P = mean_v P_v``, each ``P_v`` (C, H, W) at the size of the photo and flipped back by the
    segmentor. Labels as in ``predict``, by the segmentor's ``label_rule()``, and mended by its
    label refiners; each view's scores have been through the score refiners. mmseg's
    ``SegTTAModel`` would take the softmax of the probabilities; models of mmseg, whose scores are
    logits, are left to it, unless their head is a :class:`CosineSegHead`.

    Args:
        module: the segmentor or its config. One with a ``label_rule()`` is told to return
            probabilities; of one around another ``segmentor`` only that is used.
        data_preprocessor: of a ``module`` config that has none. (mmengine would put it in place of
            the module's own, and hands over that of the whole config.)
    """

    def __init__(
        self, module: Mapping[str, Any] | nn.Module, data_preprocessor: Any = None
    ) -> None:
        own = module.get("data_preprocessor") if isinstance(module, Mapping) else None
        super().__init__(module, data_preprocessor if own is None else None)
        if hasattr(_inner(self.module), "label_rule"):
            self.module.test_cfg = {**(self.module.test_cfg or {}), "return_probs": True}

    def merge_preds(
        self, data_samples_list: Sequence[Sequence[SegDataSample]]
    ) -> list[SegDataSample]:
        """Merge the views of each image into its first sample.

        Args:
            data_samples_list: one sequence an image, one sample a view, with ``seg_logits``
                (C, H, W).

        Returns:
            One sample an image with ``pred_sem_seg`` (1, H, W) and ``seg_logits`` (C, H, W).
        """
        segmentor = _inner(self.module)
        has_rule = hasattr(segmentor, "label_rule")
        if not has_rule and not isinstance(segmentor.decode_head, CosineSegHead):
            return super().merge_preds(data_samples_list)  # type: ignore[no-any-return]
        merged = []
        for views in data_samples_list:
            mean = torch.stack([view.seg_logits.data for view in views]).mean(dim=0)
            sample, rule = views[0], None
            if has_rule:
                with segmentor.asking(asked_names(sample)):
                    rule = segmentor.label_rule()
            refiners = getattr(segmentor, "refiners", ())
            labels = refine_labels(refiners, _labels(mean, rule), kept_masks(sample))
            sample.set_data(
                {
                    "pred_sem_seg": PixelData(data=labels.unsqueeze(0)),
                    "seg_logits": PixelData(data=mean),
                }
            )
            merged.append(sample)
        return merged


def _labels(probabilities: Tensor, rule: LabelRule | None) -> Tensor:
    if rule is None:  # a stock segmentor's head put its threshold in already
        return probabilities.argmax(dim=0)
    return labels_from_probabilities(probabilities, rule)


def _inner(module: Any) -> Any:
    return getattr(module, "segmentor", module)
