"""CAT-Seg: open-vocabulary segmentation by aggregating the cost volume of image and class names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.clip.towers.features import DenseFeatures
from mmclipdis.clip.towers.regions import resize_nearest
from mmclipdis.engine.foreign_checkpoint_guard import check_pretrained
from mmclipdis.engine.random_weights import check_weights, redraw, training_begins
from mmclipdis.models.guided import check_has_blocks, check_map_on_patches
from mmclipdis.models.segmentation.catseg.views import CATSegTestSettings, views_of
from mmclipdis.models.segmentation.encoding import encode_windows
from mmclipdis.models.segmentation.labels import check_labels
from mmclipdis.models.segmentation.prediction import LabelRule, WindowScores, resize
from mmclipdis.models.segmentation.window_segmentor import WindowSegmentor, refuse_pretrained
from mmclipdis.models.segmentation.windows import Size, pair
from mmclipdis.models.text_encoder import build_vocabulary, dense_channels, dense_option

FOLLOW_DATASET = "dataset"


@MODELS.register_module()
class CATSeg(WindowSegmentor):
    """CAT-Seg with any image encoder that has ``dense()`` and any text encoder of this package.

    Image -> bilinear to ``clip_size`` -> dense embeddings and two intermediate maps; class names ->
    text embeddings; head -> logits of every class at four times the token grid.

    Both encoders may be fine-tuned (``trainable=('q', 'v')`` in their configs). Then the text
    embeddings are computed with gradient in every training iteration, from token sequences cut at
    the longest end-of-text; in evaluation they are cached until weights or vocabulary change. The
    query weights of a last block that is read by value only (``readout='catseg'``) take no part in
    the result; the image encoder leaves them frozen, since DDP stops on parameters without
    gradient. Hence 47 trainable CLIP tensors for ViT-B and 71 for ViT-L, where the released code
    counts 48 and 72.

    Images come normalised from the ``data_preprocessor``. The released code resizes first and
    normalises then; the two commute, because bilinear weights sum to one.

    Args:
        image_encoder: Config of an encoder with ``dense(images, intermediates=...)``, such as
            ``CLIPViT`` (``readout='catseg'``) or ``DeCLIPViT``.
        text_encoder: Config of a ``OpenCLIPTextEncoder``.
        decode_head: Config of a :class:`CATSegHead`; ``embed_dim`` and ``width`` are taken from
            the image encoder.
        vocabulary: ``'dataset'`` to take the classes of the data in use, for training and for
            testing, or anything that :func:`~mmclipdis.models.text_encoder.build_vocabulary` reads.
        templates: Prompt templates; several are averaged.
        clip_size: Size (height, width) in pixels that every view is resized to.
        guidance_indices: Blocks (0-based) whose outputs guide the decoder, shallowest first.
        data_preprocessor: As in mmseg; RGB, with the encoder's mean and std.
        train_cfg: None or empty; CAT-Seg has no such settings.
        test_cfg: See :class:`~mmclipdis.models.segmentation.catseg.views.CATSegTestSettings`.
        init_cfg: As in mmseg; a ``Pretrained`` one must hold every parameter.
        refiners: As in :class:`~mmclipdis.models.segmentation.window_segmentor.WindowSegmentor`;
            probabilities are refined.
        pretrained: None, which mmseg's tools write; the encoders' ``init_cfg`` name weights.
        masks: Where the masks of a photo come from; see
            :class:`~mmclipdis.models.segmentation.window_segmentor.WindowSegmentor`.

    Raises:
        ValueError: Settings that contradict each other, or a bad ``test_cfg``.

    Source: CAT-Seg (CVPR 2024), released code.
    """

    #: Bilinear resizing uses half-pixel centres, as the released code does.
    align_corners = False
    #: What ``set_vocabulary`` changes.
    state_of_names = ("_vocabulary", "_tokens")

    def __init__(
        self,
        image_encoder: Mapping[str, Any],
        text_encoder: Mapping[str, Any],
        decode_head: Mapping[str, Any],
        vocabulary: Any = FOLLOW_DATASET,
        templates: Any = "catseg",
        clip_size: int | Sequence[int] = (384, 384),
        guidance_indices: Sequence[int] = (3, 7),
        data_preprocessor: Mapping[str, Any] | None = None,
        train_cfg: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        init_cfg: Mapping[str, Any] | None = None,
        pretrained: None = None,
        masks: Any = None,
        refiners: Sequence[Any] | None = None,
    ) -> None:
        refuse_pretrained(pretrained, type(self).__name__, "image_encoder")
        super().__init__(data_preprocessor, init_cfg, refiners, masks)
        self.image_encoder = MODELS.build(image_encoder)
        check_has_blocks(self.image_encoder, f"{type(self).__name__}.image_encoder")
        check_map_on_patches(self.image_encoder, f"{type(self).__name__}.image_encoder")
        self.text_encoder = MODELS.build(text_encoder)
        width = dense_channels(self.text_encoder)
        if self.image_encoder.embed_dim != width:
            raise ValueError(
                f"Image embeddings have {self.image_encoder.embed_dim} channels, text embeddings "
                f"{width}: give both encoders the same arch."
            )
        self.decode_head = MODELS.build(_head_for(self.image_encoder, decode_head))
        self.clip_size = _checked_size(clip_size, self.image_encoder.patch_size)
        self.guidance_indices = _checked_indices(
            guidance_indices, self.image_encoder.num_blocks, len(self.decode_head.guidance_up)
        )
        self.templates = templates
        if train_cfg:
            raise ValueError(f"CATSeg has no train_cfg, got {dict(train_cfg)}; leave it out.")
        self.test_cfg = test_cfg
        self._validating = False
        self._settings()  # a bad test_cfg must fail now, not after training
        self.follow_dataset = isinstance(vocabulary, str) and vocabulary == FOLLOW_DATASET
        self._vocabulary: Vocabulary | None = None
        self._tokens: tuple[str, Tensor] | None = None
        if not self.follow_dataset:
            self.set_vocabulary(vocabulary)

    def init_weights(self) -> None:
        """As in mmengine; mmengine would pass over the entries of ``init_cfg`` that do not fit.

        Raises:
            ValueError: naming what a ``Pretrained`` checkpoint lacks.
        """
        if not self.is_init:
            check_pretrained(self)
        super().init_weights()
        redraw(self)

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The classes in use; None while a model that follows its data knows none."""
        return self._vocabulary

    @property
    def num_classes(self) -> int | None:
        """Number of classes T, if known."""
        return None if self._vocabulary is None else self._vocabulary.num_classes

    def set_vocabulary(self, vocabulary: Any) -> None:
        """Change the classes of the live model.

        Only the first name of a class is used, as in the released code; names that two classes
        share are allowed (the first class wins).

        Args:
            vocabulary: Names, a class file, a data set name, a Vocabulary or a config.

        Raises:
            ValueError: It names no classes.
        """
        found = build_vocabulary(
            vocabulary, self.templates, separator=", ", first_only=True, allow_duplicates=True
        )
        if found is None:
            raise ValueError(f"vocabulary={vocabulary!r} names no classes; give names or a file.")
        first = tuple(names[:1] for names in found.names)
        self._vocabulary = replace(found, names=first, allow_duplicates=True)

    def class_embeddings(self) -> Tensor:
        """Unit embeddings ``(T, E)`` of the vocabulary.

        With gradient when a trainable text encoder is in training mode, else from the cache.

        Raises:
            ValueError: No vocabulary has been set.
        """
        vocabulary = self._known_vocabulary()
        dense = dense_option(self.text_encoder)
        trains = any(p.requires_grad for p in self.text_encoder.parameters())
        if not (self.training and trains and torch.is_grad_enabled()):
            embeddings: Tensor = self.text_encoder.embed(vocabulary, **dense)
            return embeddings
        tokens = self._tokens_of(vocabulary)
        found: Tensor = self.text_encoder.ensemble(tokens, vocabulary.num_classes, **dense)
        return found

    def extract_feat(
        self, inputs: Tensor, masks: Tensor | None = None, with_cls: bool = False
    ) -> DenseFeatures:
        """Dense features of normalised images ``(B, 3, H, W)``, squeezed to ``clip_size``.

        ``masks`` int64 ``(B, H, W)`` are for an encoder that ``needs_masks``; ``with_cls`` asks for
        the image embedding besides.
        """
        images = resize(inputs, self.clip_size)
        scope: dict[str, Any] = {}
        if masks is not None:
            scope["masks"] = resize_nearest(masks, self.clip_size)
        if with_cls:
            scope["with_cls"] = True
        features: DenseFeatures = self.image_encoder.dense(
            images, intermediates=self.guidance_indices, **scope
        )
        return features

    def encode_decode(
        self, inputs: Tensor, batch_data_samples: Sequence[SegDataSample] | None = None
    ) -> Tensor:
        """Class probabilities ``(B, T, H, W)`` of whole images at input size."""
        self._refuse_refiners("encode_decode")
        check_weights(self)
        return resize(self._forward(inputs).sigmoid(), (inputs.shape[-2], inputs.shape[-1]))

    def loss(self, inputs: Tensor, data_samples: Sequence[SegDataSample]) -> dict[str, Tensor]:
        """Losses of the head, prefixed ``decode.``.

        Args:
            inputs: Normalised crops ``(B, 3, H, W)``.
            data_samples: Their label maps ``gt_sem_seg``.
        """
        return self.losses_of(self.extract_feat(inputs), self.class_embeddings(), data_samples)

    def losses_of(
        self, features: DenseFeatures, text: Tensor, data_samples: Sequence[SegDataSample]
    ) -> dict[str, Tensor]:
        """As :meth:`loss`, for features and class embeddings that others need, too.

        Args:
            features: From :meth:`extract_feat`.
            text: From :meth:`class_embeddings`, ``(T, E)``.
            data_samples: As in :meth:`loss`.
        """
        training_begins(self)
        labels = torch.stack([sample.gt_sem_seg.data.squeeze(0) for sample in data_samples])
        check_labels(
            labels,
            self._known_vocabulary().num_classes,
            self.decode_head.ignore_index,
            [sample.metainfo.get("seg_map_path") for sample in data_samples],
        )
        losses = self.decode_head.loss(self.decode_head(features, text), labels)
        return {f"decode.{name}": value for name, value in losses.items()}

    def label_rule(self) -> LabelRule:
        """How class logits become labels: sigmoid in every view, then the largest.

        Raises:
            ValueError: No vocabulary has been set.
        """
        classes = self._known_vocabulary().num_classes
        device = next(self.parameters()).device
        return LabelRule(torch.arange(classes, device=device), classes, activation=torch.sigmoid)

    def val_step(self, data: Any) -> list[SegDataSample]:
        """Validation during training, with the views of ``test_cfg.val_mode``."""
        self._validating = True
        try:
            results: list[SegDataSample] = super().val_step(data)
        finally:
            self._validating = False
        return results

    def _settings(self) -> CATSegTestSettings:
        """Read ``test_cfg`` anew: tools change it after the model was built."""
        settings = CATSegTestSettings.from_cfg(self.test_cfg)
        if self._validating and settings.val_mode is not None:
            return replace(settings, mode=settings.val_mode)
        return settings

    def window_scores(
        self, images: Sequence[Tensor], masks: Sequence[Tensor] | None = None
    ) -> list[WindowScores]:
        """Logits of all views of ``images``, each ``(3, H, W)``, at a quarter of the token size.

        ``masks`` ``(H, W)`` of each image reach an image encoder that ``needs_masks``.
        """
        settings, text = self._settings(), self.class_embeddings()
        views = [views_of(image, settings, self.clip_size) for image in images]
        read = masks if self.scores_need_masks else None
        maps = encode_windows(
            [picture for view in views for picture in view.pictures],
            [layout for view in views for layout in view.layouts],
            lambda *batch: self.decode_head(self.extract_feat(*batch), text).float(),
            settings.window_batch_size,
            masks=read and [mask for view, mask in zip(views, read) for _ in view.pictures],
        )
        found = iter(maps)
        return [view.scores([next(found) for _ in view.pictures]) for view in views]

    def _forward(
        self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None
    ) -> Tensor:
        """Logits ``(B, T, h, w)`` of whole images, no post-processing (``mode='tensor'``)."""
        logits: Tensor = self.decode_head(self.extract_feat(inputs), self.class_embeddings())
        return logits

    def _known_vocabulary(self) -> Vocabulary:
        if self._vocabulary is None:
            raise ValueError(
                "CATSeg does not know its classes yet: call set_vocabulary(names), give "
                "vocabulary=... in the config, or run with VocabularyHook."
            )
        return self._vocabulary

    def _tokens_of(self, vocabulary: Vocabulary) -> Tensor:
        """Token ids of all prompts, class by class; made once for each vocabulary."""
        key = vocabulary.key()
        if self._tokens is None or self._tokens[0] != key:
            prompts = [text for texts in vocabulary.prompts() for text in texts]
            self._tokens = (key, self.text_encoder.tokenize(prompts))
        return self._tokens[1]


def _head_for(encoder: Any, decode_head: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what the encoder decides, and refuse what contradicts it."""
    config = dict(decode_head)
    for name in ("embed_dim", "width"):
        value = getattr(encoder, name)
        if config.setdefault(name, value) != value:
            raise ValueError(
                f"decode_head.{name}={config[name]}, but the image encoder has {value}; leave it "
                "out of the config."
            )
    return config


def _checked_size(clip_size: int | Sequence[int], patch: Size) -> Size:
    size = pair(clip_size, "clip_size")
    if any(s < p or s % p for s, p in zip(size, patch, strict=True)):
        raise ValueError(
            f"clip_size must be (height, width) in multiples of the patch {patch}, got {clip_size}."
        )
    return size


def _checked_indices(indices: Sequence[int], blocks: int, stages: int) -> tuple[int, ...]:
    found = tuple(indices)
    increasing = all(a < b for a, b in pairwise(found))
    if len(found) != stages or not increasing or any(not 0 <= i < blocks for i in found):
        raise ValueError(
            f"guidance_indices={found}: name {stages} of the image encoder's blocks 0 to "
            f"{blocks - 1}, shallowest first, one for each entry of decode_head.guidance_dims."
        )
    return found
