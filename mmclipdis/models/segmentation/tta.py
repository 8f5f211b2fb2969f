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

from mmclipdis.models.segmentation.catseg.segmentor import CATSeg
from mmclipdis.models.segmentation.cosine_head import CosineSegHead
from mmclipdis.models.segmentation.infoclip.segmentor import InfoCLIP
from mmclipdis.models.segmentation.open_vocab_segmentor import OpenVocabSegmentor
from mmclipdis.models.segmentation.prediction import labels_from_probabilities


@MODELS.register_module()
class OpenVocabTTAModel(SegTTAModel):
    """Mean of the class probabilities of all views, labelled by the rule of a single view.

    ``P = mean_v P_v``, each ``P_v`` (C, H, W) at the size of the photo and flipped back by the
    segmentor. Labels as in ``predict``: threshold and small classes of :class:`CosineSegHead`,
    argmax for :class:`CATSeg`. mmseg's ``SegTTAModel`` would take the softmax of the
    probabilities; models of mmseg, whose scores are logits, are left to it.

    Args:
        module: the segmentor or its config. :class:`OpenVocabSegmentor` and :class:`CATSeg` are
            told to return probabilities; of an :class:`InfoCLIP` only the segmentor is used.
        data_preprocessor: given to a ``module`` config, as in mmengine.
    """

    def __init__(
        self, module: Mapping[str, Any] | nn.Module, data_preprocessor: Any = None
    ) -> None:
        super().__init__(module, data_preprocessor)
        if isinstance(_inner(self.module), (OpenVocabSegmentor, CATSeg)):
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
        if not isinstance(segmentor, CATSeg) and not isinstance(
            segmentor.decode_head, CosineSegHead
        ):
            return super().merge_preds(data_samples_list)  # type: ignore[no-any-return]
        merged = []
        for views in data_samples_list:
            mean = torch.stack([view.seg_logits.data for view in views]).mean(dim=0)
            sample = views[0]
            sample.set_data(
                {
                    "pred_sem_seg": PixelData(data=self._labels(mean).unsqueeze(0)),
                    "seg_logits": PixelData(data=mean),
                }
            )
            merged.append(sample)
        return merged

    def _labels(self, probabilities: Tensor) -> Tensor:
        if isinstance(self.module, OpenVocabSegmentor):
            return labels_from_probabilities(probabilities, self.module.decode_head.rule())
        return probabilities.argmax(dim=0)  # a stock segmentor's head put its threshold in already


def _inner(module: Any) -> Any:
    return module.segmentor if isinstance(module, InfoCLIP) else module
