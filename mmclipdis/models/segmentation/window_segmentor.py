"""The base of segmentors that score windows of an image and label it from these scores."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from mmseg.models.segmentors import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmclipdis.engine.random_weights import check_weights
from mmclipdis.models.segmentation.masks import REMEDY, build_masks, mask_maps
from mmclipdis.models.segmentation.named_segmentor import NamedSegmentor
from mmclipdis.models.segmentation.prediction import LabelRule, WindowScores
from mmclipdis.models.segmentation.preprocessor import for_mixed_sizes
from mmclipdis.models.segmentation.refining import Refiner, build_refiners
from mmclipdis.models.segmentation.samples import predict_samples
from mmclipdis.models.segmentation.settings import TestSettings


class WindowSegmentor(NamedSegmentor, BaseSegmentor):
    """Prediction; a subclass says how windows are scored and how scores become labels.

    Args:
        data_preprocessor: As in mmseg.
        init_cfg: As in mmseg.
        refiners: What mends scores and labels at the size of the photo, a list in the order it runs
            (:mod:`mmclipdis.models.segmentation.refining`).
        masks: Where the masks of a photo come from, for what needs them: the config of a source,
            such as ``dict(type='MaskFolder', root=...)``, or a function of the photo
            (:mod:`mmclipdis.models.segmentation.masks`). May be set later, too.

    Raises:
        ValueError: A refiner that is none, or that does not know an argument; ``masks`` is nothing
            that masks could come from.
    """

    #: Of a test pipeline (:mod:`mmclipdis.engine.moved_pixels`).
    undoes = ("pad", "flip")
    #: Least probability of a labelled pixel, in place of the one of :meth:`label_rule`, or None:
    #: what a call of an inferencer asks for.
    asked_threshold: float | None = None

    def __init__(
        self,
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
        init_cfg: Mapping[str, Any] | None = None,
        refiners: Sequence[Any] | None = None,
        masks: Any = None,
    ) -> None:
        super().__init__(data_preprocessor=for_mixed_sizes(data_preprocessor), init_cfg=init_cfg)
        self.refiners = refiners
        self.masks = build_masks(masks)

    @property
    def refiners(self) -> tuple[Refiner, ...]:
        """What mends scores and labels; configs of them may be set, too."""
        return self._refiners

    @refiners.setter
    def refiners(self, value: Sequence[Any] | None) -> None:
        """Build them."""
        self._refiners = build_refiners(value)

    @property
    @abstractmethod
    def num_classes(self) -> int | None:
        """Number of classes, if known."""

    @property
    def out_channels(self) -> int | None:
        """Channels of the class scores, which mmseg's test-time augmentation asks for."""
        return self.num_classes

    @property
    def scores_need_masks(self) -> bool:
        """Whether an encoder reads masks, so that :meth:`window_scores` needs them."""
        return any(getattr(part, "needs_masks", False) for part in self.children())

    @property
    def needs_masks(self) -> bool:
        """Whether an encoder or a refiner reads masks."""
        refiners = getattr(self, "refiners", ())
        return self.scores_need_masks or any(getattr(r, "needs_masks", False) for r in refiners)

    def photo_masks(
        self,
        inputs: Tensor | Sequence[Tensor],
        data_samples: Sequence[SegDataSample] | None = None,
    ) -> list[Tensor] | None:
        """Numbers of masks int64 (H, W) of each photo, flipped as it is; None if none are needed.

        Args:
            inputs: As in :meth:`predict`.
            data_samples: As in :meth:`predict`.

        Raises:
            ValueError: they are needed and there is no source, or as
                :func:`~mmclipdis.models.segmentation.masks.mask_maps`.
            FileNotFoundError: those of a photo are not there.
        """
        if not self.needs_masks:
            if self.masks is not None:
                warnings.warn(
                    f"{type(self).__name__} has masks, and nothing of it reads them: a readout "
                    "with scope='masks' does, such as 'corrclip', and the refiner MaskVote",
                    stacklevel=2,
                )
            return None
        if self.masks is None:
            raise ValueError(f"{type(self).__name__} needs the masks of each photo: {REMEDY}")
        metas = [{} for _ in inputs] if data_samples is None else [s.metainfo for s in data_samples]
        return mask_maps(self.masks, inputs, metas, self.data_preprocessor)

    @abstractmethod
    def window_scores(
        self, images: Sequence[Tensor], masks: Sequence[Tensor] | None = None
    ) -> list[WindowScores]:
        """Scores of all windows of ``images``, each (3, H, W), as the model gives them.

        ``masks`` are those of :meth:`photo_masks`, for a model that needs some.
        """

    @abstractmethod
    def label_rule(self) -> LabelRule:
        """How these scores become labels."""

    @abstractmethod
    def _settings(self) -> TestSettings:
        """Read ``test_cfg`` anew: tools change it after the model was built."""

    @torch.no_grad()
    def predict(
        self,
        inputs: Tensor | Sequence[Tensor],
        data_samples: Sequence[SegDataSample] | None = None,
    ) -> list[SegDataSample]:
        """Label maps at the size of the photos.

        Windows of all images are encoded in batches; from their scores to the labels a few classes
        are at full size at a time.

        Args:
            inputs: Normalised images, (B, 3, H, W) or a list of (3, H, W) of different sizes.
            data_samples: Their meta information (``ori_shape``, padding, flip); without it the
                result has the size of the input.

        Returns:
            One sample an image with ``pred_sem_seg`` (1, H, W), the ``label_names`` of its classes
            (:class:`~mmclipdis.models.segmentation.named_segmentor.NamedSegmentor`) and, only when
            ``test_cfg.return_probs``, class probabilities ``seg_logits`` (C, H, W).

        Raises:
            ValueError: An image without pixels, no classes, a bad ``test_cfg``, or what
                :meth:`window_scores` refuses.
            RuntimeError: No weights for a part that must be trained.
        """
        check_weights(self)
        return self.predict_by_names(self._predict, inputs, data_samples)

    def _predict(
        self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence[SegDataSample] | None
    ) -> list[SegDataSample]:
        rule = self.label_rule()
        if self.asked_threshold is not None:
            rule = replace(rule, prob_thd=self.asked_threshold)
        masks = self.photo_masks(inputs, data_samples)
        return predict_samples(
            inputs,
            data_samples,
            self.window_scores,
            rule,
            self._settings(),
            self.refiners,
            masks=masks,
        )

    def _refuse_refiners(self, method: str) -> None:
        """Say that a method of mmseg's goes past the refiners, if there are any.

        Raises:
            ValueError: there are.
        """
        if self.refiners:
            names = ", ".join(type(refiner).__name__ for refiner in self.refiners)
            raise ValueError(
                f"{type(self).__name__}.{method} does not refine ({names}): call predict, with "
                "test_cfg.return_probs=True for probabilities, or leave the refiners out"
            )


def refuse_pretrained(pretrained: Any, model: str, part: str) -> None:
    """Refuse a value of ``pretrained``, which mmseg's configs have and its tools set to None.

    Args:
        pretrained: What the config says.
        model: Name of the class, for the message.
        part: Key of the part that has weights, such as ``'backbone'``.

    Raises:
        ValueError: it is not None.
    """
    if pretrained is not None:
        raise ValueError(
            f"{model} takes pretrained=None only, got {pretrained!r}: name the weights where they "
            f"go, {part}.init_cfg=dict(type='Pretrained', checkpoint={pretrained!r})"
        )
