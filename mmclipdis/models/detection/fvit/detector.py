"""F-ViT: a Faster or Mask R-CNN on a frozen CLIP ViT that also detects what it was not taught."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from mmdet.models.detectors import TwoStageDetector
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor

from mmclipdis.engine.random_weights import (
    check_weights,
    redraw,
    training_begins,
    watch_weights,
)
from mmclipdis.models.asked_names import AskedNames, by_asked_names
from mmclipdis.models.class_text import WithClassText, check_same_clip
from mmclipdis.models.detection.names import (
    check_training_names,
    colours_for,
    config_metainfo,
    is_guess,
    warn_of_other_names,
)
from mmclipdis.models.named_classes import NamedClasses


@MODELS.register_module()
class FViT(NamedClasses, WithClassText, TwoStageDetector):
    """A ``TwoStageDetector`` with an ``FViTBackbone``, stock neck and RPN, and an ``FViTRoIHead``.

    Unless the config chooses a vocabulary, the classes are those of the data in use
    (``VocabularyHook``) or of the ``dataset_meta`` that mmdet's tools take from a checkpoint, and
    so is which of them are novel. A data sample with a ``text`` is searched for what that names
    (``DetInferencer(...)(photo, texts='kite . red apple')``): classes that are not known to have
    had boxes in training count as novel. Results carry ``label_names``.

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
    _guessed = False  # whether the names are those that mmdet takes where there are none

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

    def use_metainfo(self, metainfo: Mapping[str, Any]) -> None:
        """Take classes, and which are novel, from a ``dataset_meta`` (``NamedClasses``).

        A chosen vocabulary stays; which classes were base ones in training is learned all the same.

        Raises:
            ValueError: as ``set_vocabulary`` and ``DetectorText.learn_base``.
        """
        flags = self.learn_base(metainfo)
        super().use_metainfo(metainfo)
        if not self.follow_dataset:
            warn_of_other_names(self.vocabulary, metainfo)
            return
        if flags is not None:
            self.set_novel(flags)
        self._guessed = is_guess(metainfo)

    def learn_base(self, metainfo: Mapping[str, Any]) -> tuple[bool, ...] | None:
        """Learn which classes had boxes in training; see ``DetectorText.learn_base``."""
        flags: tuple[bool, ...] | None = self.class_text.text.learn_base(metainfo)
        return flags

    def set_vocabulary(self, vocabulary: Any, novel_classes: Sequence[str] | None = None) -> None:
        """Change the classes of the live model; see ``DetectorText.set_vocabulary``."""
        self.class_text.set_vocabulary(vocabulary, novel_classes)
        self._guessed = False
        self.write_names()

    def set_novel(self, novel: Sequence[bool] | None) -> None:
        """Say which classes are novel; see ``DetectorText.set_novel``."""
        self.class_text.set_novel(novel)

    def take_names(self) -> None:
        """Take the names of the test data of ``cfg``, which mmdet's tools write, if there are none.

        mmdet says that a model without any has COCO's classes; those of ``cfg`` are better.
        """
        if self.follow_dataset and (self._guessed or self.vocabulary is None):
            self._guessed = False
            found = config_metainfo(getattr(self, "cfg", None))
            if found is not None:
                self.use_metainfo(found)

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

    def _searching(self, names: AskedNames | None) -> AbstractContextManager[None]:
        mine = None if self.vocabulary is None else self.vocabulary.names
        if names is None or names == mine:  # a data set that gives its classes as text
            return nullcontext()
        asked: AbstractContextManager[None] = self.class_text.asked(names)
        return asked

    def _name(self, found: Sequence[InstanceData]) -> None:
        """Give detections their names; pictures have a colour for each of these."""
        names = self.vocabulary.class_names if self.vocabulary is not None else ()
        for instances in found:
            instances.label_names = [names[label] for label in instances.labels.tolist()]
        colours_for(self._meta(), len(names))
