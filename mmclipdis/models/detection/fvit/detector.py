"""F-ViT: a Faster or Mask R-CNN on a frozen CLIP ViT that also detects what it was not taught."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.models.detectors import TwoStageDetector
from mmdet.registry import MODELS
from torch import Tensor

from mmclipdis.engine.random_weights import (
    check_weights,
    redraw,
    training_begins,
    watch_weights,
)
from mmclipdis.models.class_text import WithClassText, check_same_clip


@MODELS.register_module()
class FViT(WithClassText, TwoStageDetector):
    """A ``TwoStageDetector`` with an ``FViTBackbone``, stock neck and RPN, and an ``FViTRoIHead``.

    Args:
        **kwargs: As in ``TwoStageDetector``.

    The test pipeline resizes photos and no more: the preprocessor pads them to the square that
    F-ViT sees, and boxes are scaled back by ``scale_factor`` alone.

    Raises:
        ValueError: image and text of different CLIPs, a backbone without dense map, or as the
            parts.

    Source: F-ViT (CLIPSelf, ICLR 2024); with DeCLIP's weights, DeCLIP (CVPR 2025).
    """

    #: Of a test pipeline (:mod:`mmclipdis.engine.moved_pixels`).
    undoes = ()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not getattr(self.backbone, "dense_map", True):
            raise ValueError("FViT reads CLIP's dense map: leave dense_map=True on the backbone")
        encoder = getattr(self.backbone, "encoder", None)
        check_same_clip(getattr(encoder, "arch", None), self.class_text.text.encoder)
        for part in self.children():
            watch_weights(part, must_train=True)  # but for CLIP, which is frozen

    def init_weights(self) -> None:
        """As in mmengine; what is drawn here is still random."""
        super().init_weights()
        redraw(self)

    @property
    def class_text(self) -> Any:
        """The part that knows the classes."""
        return self.roi_head.bbox_head

    def set_vocabulary(self, vocabulary: Any, novel_classes: Sequence[str] | None = None) -> None:
        """Change the classes of the live model; see ``DetectorText.set_vocabulary``."""
        self.class_text.set_vocabulary(vocabulary, novel_classes)

    def set_novel(self, novel: Sequence[bool] | None) -> None:
        """Say which classes are novel; see ``DetectorText.set_novel``."""
        self.class_text.set_novel(novel)

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Levels of the neck, for images (B, 3, H, W); what stock training and _forward read."""
        return self._extract(batch_inputs)[0]

    def _extract(self, batch_inputs: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
        *levels, vlm_map = self.backbone(batch_inputs)
        x = self.neck(tuple(levels)) if self.with_neck else tuple(levels)
        return x, vlm_map

    def loss(self, batch_inputs: Tensor, batch_data_samples: list[Any]) -> Any:
        """As in ``TwoStageDetector``."""
        training_begins(self)
        return super().loss(batch_inputs, batch_data_samples)

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: list[Any], rescale: bool = True
    ) -> list[Any]:
        """As in ``TwoStageDetector``, with CLIP's dense map for the RoI head.

        Raises:
            RuntimeError: no weights for a part that must be trained.
        """
        check_weights(self)
        x, vlm_map = self._extract(batch_inputs)
        if batch_data_samples[0].get("proposals", None) is None:
            proposals = self.rpn_head.predict(x, batch_data_samples, rescale=False)
        else:
            proposals = [sample.proposals for sample in batch_data_samples]
        found = self.roi_head.predict(
            x,
            proposals,
            batch_data_samples,
            rescale=rescale,
            vlm_map=vlm_map,
            vlm_stride=self.backbone.patch_size,
        )
        return self.add_pred_to_datasample(batch_data_samples, found)
