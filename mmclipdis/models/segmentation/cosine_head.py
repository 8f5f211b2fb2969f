"""The decode head that learns nothing: cosine of every patch with every class name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.models.losses import accuracy
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.models.projectors import Projectors
from mmclipdis.models.segmentation.class_queries import (
    ClassQueries,
    build_projector,
    check_background,
)
from mmclipdis.models.segmentation.labels import check_labels
from mmclipdis.models.segmentation.prediction import (
    LabelRule,
    best_synonyms,
    class_probabilities,
    minmax,
    resize,
)
from mmclipdis.models.segmentation.ready_embeddings import load_ready_embeddings
from mmclipdis.models.text_encoder import build_vocabulary

FOLLOW_DATASET = "dataset"


@MODELS.register_module()
class CosineSegHead(BaseModule):
    r"""Scores of the patches: :math:`\ell_{qp} = s \cdot \cos(f_p, t_q)` for query q and patch p.

    Used by :class:`OpenVocabSegmentor`, which applies the published order of operations, and as
    ``decode_head`` of mmseg's stock ``EncoderDecoder``. There :meth:`predict` returns class
    probabilities of the window, which mmseg averages over windows, resizes to the photo and takes
    the argmax of. Two things differ from the published order, and only there: probabilities
    instead of cosines are averaged, and the background threshold, put under the probability of the
    background as a floor, acts on the averaged and resized map. A window cannot know which classes
    are small in the photo, so ``area_thd`` is refused there.

    Class embeddings are a buffer that is not saved: they follow the vocabulary and the weights of
    the text encoder, and are computed when first needed.

    Args:
        text_encoder: config of an
            :class:`~mmclipdis.models.text_encoder.OpenCLIPTextEncoder`, or the module; None if
            ``embeddings`` are given.
        vocabulary: ``'dataset'`` to take the classes of the data set in use (``VocabularyHook`` or
            :meth:`set_vocabulary` names them), or anything that
            :func:`~mmclipdis.models.text_encoder.build_vocabulary` reads.
        templates: prompt templates for vocabularies that do not bring their own.
        embeddings: ready text embeddings (Q, E), a tensor or a ``.npy``, ``.pt`` or
            ``.safetensors`` file of one, in place of a text encoder.
        logit_scale: :math:`s`, the inverse softmax temperature. CLIP's learned scale is not used.
        projector: DCLIP's projectors, a checkpoint of one of its runs or the module: the map and
            the class embeddings are projected before they are compared.
        any_arch: take projectors of any CLIP of the right width.
        score_norm: ``'minmax'`` spreads the cosines of every query over 0..1 within an image
            before ``logit_scale`` (DCLIP's early code); only under :class:`OpenVocabSegmentor`.
        prob_thd: background wherever the best class probability is strictly below it.
        background: ``'query'``: the background is a class with names like any other.
            ``'threshold'``: none of its names is asked for, it is only what is below ``prob_thd``
            (GEM, DCLIP: ``logit_scale=100, prob_thd=0.85``).
        background_index: class that :attr:`prob_thd` falls back to; None for the vocabulary's own,
            or 0.
        area_thd: share of the foreground below which a class is dropped (SCLIP, VOC21: 0.1); only
            under :class:`OpenVocabSegmentor`.
        num_classes: checked against the vocabulary; needed only under ``EncoderDecoder`` when the
            vocabulary follows the data set.
        in_index: which of the backbone's outputs is the dense map in the joint space.
        ignore_index: label without loss.
        loss_decode: config of the loss on class scores when a trainable backbone is fine-tuned.

    Raises:
        ValueError: neither or both of ``text_encoder`` and ``embeddings``, a text encoder with
            trainable weights, or shapes, counts and thresholds that contradict each other.
    """

    #: Bilinear resizing uses half-pixel centres, as all reference codes do.
    align_corners = False

    def __init__(
        self,
        text_encoder: Mapping[str, Any] | torch.nn.Module | None = None,
        vocabulary: Any = FOLLOW_DATASET,
        templates: Any = "imagenet80",
        embeddings: Tensor | str | Path | None = None,
        logit_scale: float = 50.0,
        projector: str | Path | Projectors | None = None,
        any_arch: bool = False,
        score_norm: str | None = None,
        prob_thd: float = 0.0,
        background: str = "query",
        background_index: int | None = None,
        area_thd: float | None = None,
        num_classes: int | None = None,
        in_index: int = -1,
        ignore_index: int = 255,
        loss_decode: Mapping[str, Any] | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg=dict(init_cfg) if init_cfg else None)
        if (text_encoder is None) == (embeddings is None):
            raise ValueError("CosineSegHead needs either a text_encoder or ready embeddings")
        self.text_encoder: Any = text_encoder
        if isinstance(text_encoder, Mapping):
            self.text_encoder = MODELS.build(text_encoder)
        if text_encoder is not None and any(
            p.requires_grad for p in self.text_encoder.parameters()
        ):
            raise ValueError(
                "CosineSegHead takes class embeddings as constants and would not train its "
                "text_encoder: give it trainable=(), and train the backbone"
            )
        self.templates = templates
        self.logit_scale = _in_range("logit_scale", logit_scale, 0.0, float("inf"))
        self.prob_thd = _in_range("prob_thd", prob_thd, 0.0, 1.0)
        self.background = check_background(background, self.prob_thd)
        if score_norm not in (None, "minmax"):
            raise ValueError(f"score_norm must be None or 'minmax', got {score_norm!r}")
        self.score_norm = score_norm
        self.area_thd = None if area_thd is None else _in_range("area_thd", area_thd, 0.0, 1.0)
        self.background_index = background_index
        self.in_index = in_index
        self.ignore_index = ignore_index
        loss = dict(loss_decode or {"type": "CrossEntropyLoss", "avg_non_ignore": True})
        self.loss_decode = MODELS.build(loss)
        self.follow_dataset = isinstance(vocabulary, str) and vocabulary == FOLLOW_DATASET
        self._expected_classes = num_classes
        self._vocabulary: Vocabulary | None = None
        self._asked: Vocabulary | None = None  # without the background, if that has no query
        self._embeddings_are_given = embeddings is not None
        self._embeddings: Tensor | None
        self.query_to_class: Tensor
        given = (
            None if embeddings is None else F.normalize(load_ready_embeddings(embeddings), dim=-1)
        )
        self.register_buffer("_embeddings", given, persistent=False)
        self.register_buffer("query_to_class", torch.empty(0, dtype=torch.long), persistent=False)
        self.any_arch = any_arch
        self.projector = build_projector(projector, self.text_encoder, given, any_arch)
        if not self.follow_dataset:
            self.set_vocabulary(vocabulary)

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary in use; None while one that follows the data set is not known yet."""
        return self._vocabulary

    @property
    def num_classes(self) -> int | None:
        """Number of classes C, if known."""
        known = self._vocabulary
        return self._expected_classes if known is None else known.num_classes

    @property
    def out_channels(self) -> int | None:
        """Channels of :meth:`predict`: one a class."""
        return self.num_classes

    def set_vocabulary(self, vocabulary: Any, embeddings: Tensor | None = None) -> None:
        """Change the classes of the live head.

        Args:
            vocabulary: a Vocabulary, a list of names, a class file, a data set name or a config.
            embeddings: (Q, E) of its queries, for a head without text encoder.

        Raises:
            ValueError: its size contradicts ``num_classes``, ``background_index`` or the ready
                embeddings.
        """
        new = build_vocabulary(vocabulary, templates=self.templates)
        if new is None:
            raise ValueError(f"vocabulary={vocabulary!r} names no classes; give names or a file")
        expected = self._expected_classes
        if expected is not None and new.num_classes != expected:
            raise ValueError(
                f"the vocabulary has {new.num_classes} classes, num_classes={expected} was asked "
                "for; correct num_classes or leave it out"
            )
        background = self._background(new)
        if not 0 <= background < new.num_classes:
            raise ValueError(
                f"background_index={background} is no class of a vocabulary of {new.num_classes}"
            )
        asked = ClassQueries.of(new, background if self.background == "threshold" else None)
        ready = self._embeddings if self._embeddings_are_given else None
        if embeddings is not None:
            ready = F.normalize(embeddings.to(self.query_to_class.device), dim=-1)
        if ready is not None and len(ready) != len(asked.classes):
            raise ValueError(
                f"{len(ready)} ready embeddings for {len(asked.classes)} queries; pass "
                "the embeddings of the new queries, or use a text_encoder"
            )
        self._embeddings = ready
        self._vocabulary, self._asked = new, asked.vocabulary
        self.query_to_class = asked.classes.to(self.query_to_class.device)

    def embeddings(self) -> Tensor:
        """CLIP's unit text embeddings (Q, E) of the queries, computed at the first call.

        Raises:
            RuntimeError: no vocabulary has been set.
        """
        if self._vocabulary is None:
            raise RuntimeError(
                "no class names yet: this head follows the data set; run it with VocabularyHook, "
                "call set_vocabulary(names), or name a vocabulary in the config"
            )
        if self._embeddings is None and self.text_encoder is not None:
            # An inference tensor could not take part in a later backward pass.
            with torch.inference_mode(False), torch.no_grad():
                embedded = self.text_encoder.embed(self._asked).clone()
                self._embeddings = embedded.to(self.query_to_class.device)
        if self._embeddings is None:
            raise RuntimeError("no embeddings for this vocabulary")
        return self._embeddings

    def rule(self) -> LabelRule:
        """How the query scores of this head become labels.

        Raises:
            RuntimeError: no vocabulary has been set.
        """
        self.embeddings()
        vocabulary = self._vocabulary
        return LabelRule(
            query_to_class=self.query_to_class,
            num_classes=vocabulary.num_classes if vocabulary else 0,
            prob_thd=self.prob_thd,
            background_index=self._background(vocabulary),
            area_thd=self.area_thd,
        )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits float32 (B, Q, h, w) of the backbone's dense map (B, E, h, w).

        Always in float32, under AMP too: at scale 50 the steps of a half-precision cosine are
        0.012 logits, visible as ties.
        """
        features = inputs[self.in_index]
        embeddings = self.embeddings()
        if features.shape[1] != embeddings.shape[1]:
            raise ValueError(
                f"the map has {features.shape[1]} channels, text embeddings {embeddings.shape[1]}; "
                "backbone and text encoder must be of one CLIP, and the backbone's out_indices "
                "must end with 'map'"
            )
        with torch.autocast(features.device.type, enabled=False):
            dtype = torch.promote_types(features.dtype, torch.float32)
            features, text = features.to(dtype), embeddings.to(dtype)
            if self.projector is not None:
                tokens, text = self.projector(features.movedim(1, -1), text)
                features, text = tokens.movedim(-1, 1), F.normalize(text, dim=1)
            unit = F.normalize(features, dim=1)
            # A product and no convolution: cudnn's run in TF32 unless told otherwise.
            weight = text * self.logit_scale
            return (weight @ unit.flatten(2)).unflatten(2, unit.shape[2:])

    def normalized(self, maps: Tensor) -> Tensor:
        """Logits (n, Q, gh, gw) of an image's n windows as ``score_norm`` wants them."""
        return self.logit_scale * minmax(maps) if self.score_norm == "minmax" else maps

    def predict(
        self, inputs: Sequence[Tensor], batch_img_metas: Sequence[Mapping[str, Any]], test_cfg: Any
    ) -> Tensor:
        """Class probabilities (B, C, H, W) at window size, as ``EncoderDecoder`` expects them.

        ``test_cfg`` belongs to ``EncoderDecoder`` and says nothing to a head.

        Raises:
            ValueError: there is an ``area_thd`` or a ``score_norm``.
        """
        for name in ("area_thd", "score_norm"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} needs the whole photo, not a window of it: "
                    f"use type='OpenVocabSegmentor' as the model, or leave {name} out"
                )
        logits = resize(self.forward(inputs), _window_size(batch_img_metas[0]))
        rule = self.rule()
        out = torch.stack([class_probabilities(image, rule) for image in logits])
        if rule.prob_thd > 0:
            background = out[:, rule.background_index]
            # Just below the threshold: a probability equal to it must keep its label.
            floor = torch.nextafter(torch.full_like(background, rule.prob_thd), -background - 1)
            out[:, rule.background_index] = torch.maximum(background, floor)
        return out

    def loss(
        self, inputs: Sequence[Tensor], batch_data_samples: Sequence[SegDataSample], train_cfg: Any
    ) -> dict[str, Tensor]:
        """Loss on class scores (the best synonym's logit), for a backbone that is trainable.

        Raises:
            ValueError: nothing of the features can learn, a label is no class, or the head has
                ``score_norm`` or ``background='threshold'``.
        """
        if self.score_norm is not None or self.background == "threshold":
            raise ValueError(
                "score_norm and background='threshold' only predict: leave them out in training"
            )
        if not inputs[self.in_index].requires_grad:
            raise ValueError(
                "CosineSegHead learns nothing itself and the backbone is frozen: give the backbone "
                "trainable=('q', 'v') or ('all',), or test without training"
            )
        logits, rule = self.forward(inputs), self.rule()
        scores = best_synonyms(logits, rule)
        labels = torch.stack([sample.gt_sem_seg.data for sample in batch_data_samples])
        scores = resize(scores, (int(labels.shape[-2]), int(labels.shape[-1])))
        target = labels[:, 0].long()
        paths = [sample.get("seg_map_path") for sample in batch_data_samples]
        check_labels(target, rule.num_classes, self.ignore_index, paths)
        value = self.loss_decode(scores, target, ignore_index=self.ignore_index)
        hit = accuracy(scores, target, ignore_index=self.ignore_index)
        return {self.loss_decode.loss_name: value, "acc_seg": hit}

    def init_weights(self) -> None:
        """Load the text encoder's weights; embeddings made with other weights are forgotten."""
        super().init_weights()
        self._forget()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._forget()

    def _forget(self) -> None:
        if not self._embeddings_are_given:
            self._embeddings = None

    def _background(self, vocabulary: Vocabulary | None) -> int:
        if self.background_index is not None:
            return self.background_index
        own = vocabulary.background_index if vocabulary else None
        return 0 if own is None else own


def _in_range(name: str, value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise ValueError(f"{name} must be in [{low}, {high}], got {value!r}")
    return float(value)


def _window_size(meta: Mapping[str, Any]) -> tuple[int, int]:
    """Size in pixels of the window just encoded (mmseg's predict_by_feat).

    In slide mode ``EncoderDecoder`` writes the window's ``torch.Size`` into ``img_shape``.
    """
    shape = meta["img_shape"]
    if not isinstance(shape, torch.Size):
        shape = meta.get("pad_shape", shape)
    return int(shape[0]), int(shape[1])
