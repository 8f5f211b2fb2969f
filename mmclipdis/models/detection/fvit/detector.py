"""F-ViT: a Faster or Mask R-CNN on a frozen CLIP ViT that also detects what it was not taught."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from mmdet.models.detectors import TwoStageDetector
from mmdet.registry import MODELS
from torch import Tensor

from mmclipdis.engine.random_weights import check_weights, training_begins
from mmclipdis.models.asked_names import by_asked_names
from mmclipdis.models.detection.names import check_training_names
from mmclipdis.models.detection.open_vocab import OpenVocabDetector


@MODELS.register_module()
class FViT(OpenVocabDetector, TwoStageDetector):
    """A ``TwoStageDetector`` with an ``FViTBackbone``, stock neck and RPN, and an ``FViTRoIHead``.

    Classes, texts of samples and names of results: as in
    :class:`~mmclipdis.models.detection.open_vocab.OpenVocabDetector`.

    Args:
        **kwargs: As in ``TwoStageDetector``.

    The test pipeline resizes photos and no more: the preprocessor pads them to the square that
    F-ViT sees, and boxes are scaled back by ``scale_factor`` alone.

    Raises:
        ValueError: image and text of different CLIPs, a backbone without dense map, or as the
            parts.

    Source: F-ViT (CLIPSelf, ICLR 2024); with DeCLIP's weights, DeCLIP (CVPR 2025).
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._check_parts()

    @property
    def class_text(self) -> Any:
        """The part that knows the classes."""
        return self.roi_head.bbox_head

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Levels of the neck, for images (B, 3, H, W); what stock training and _forward read."""
        return self._extract(batch_inputs)[0]

    def _extract(self, batch_inputs: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
        *levels, vlm_map = self.backbone(batch_inputs)
        x = self.neck(tuple(levels)) if self.with_neck else tuple(levels)
        return x, vlm_map

    def loss(self, batch_inputs: Tensor, batch_data_samples: list[Any]) -> dict[str, Any]:
        """As in ``TwoStageDetector``.

        Raises:
            ValueError: a sample's ``text`` names other classes than the model's.
        """
        training_begins(self)
        check_training_names(by_asked_names(batch_data_samples), self.vocabulary)
        losses: dict[str, Any] = super().loss(batch_inputs, batch_data_samples)
        return losses

    def _forward(self, batch_inputs: Tensor, batch_data_samples: list[Any]) -> Any:
        """As in ``TwoStageDetector``; without names, region embeddings (n, D) are the logits.

        ``get_flops.py`` of mmdet knows none: it builds the model and no more.
        """
        self.take_names()
        unnamed = self.vocabulary is None
        with self.class_text.nameless() if unnamed else nullcontext():
            return super()._forward(batch_inputs, batch_data_samples)

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: list[Any], rescale: bool = True
    ) -> list[Any]:
        """As in ``TwoStageDetector``, with CLIP's dense map for the RoI head.

        Samples with a ``text`` are searched for what that names
        (:mod:`mmclipdis.models.asked_names`), others for the model's classes. The names are
        ``pred_instances.label_names``.

        Raises:
            ValueError: names that cannot be read; and as the parts.
            RuntimeError: no weights for a part that must be trained.
        """
        check_weights(self)
        self.take_names()
        groups = by_asked_names(batch_data_samples)
        x, vlm_map = self._extract(batch_inputs)
        if batch_data_samples[0].get("proposals", None) is None:
            proposals = self.rpn_head.predict(x, batch_data_samples, rescale=False)
        else:
            proposals = [sample.proposals for sample in batch_data_samples]
        found: list[Any] = [None] * len(batch_data_samples)
        for names, places in groups:
            levels, dense = x, vlm_map
            if len(groups) > 1:
                levels = tuple(level[places] for level in x)
                dense = None if vlm_map is None else vlm_map[places]
            with self._searching(names):
                named = self.roi_head.predict(
                    levels,
                    [proposals[place] for place in places],
                    [batch_data_samples[place] for place in places],
                    rescale=rescale,
                    vlm_map=dense,
                    vlm_stride=self.backbone.patch_size,
                )
                self._name(named)
            for place, instances in zip(places, named, strict=True):
                found[place] = instances
        return self.add_pred_to_datasample(batch_data_samples, found)
