"""The decode head that learns nothing: cosine of every patch with every class name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models.losses import accuracy
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmclipdis.clip.towers.pools import like_map
from mmclipdis.engine.random_weights import check_weights
from mmclipdis.models.projectors import Projectors
from mmclipdis.models.score_scale import ScoreScale
from mmclipdis.models.segmentation.class_queries import build_projector, check_background
from mmclipdis.models.segmentation.labels import check_labels, joint_count
from mmclipdis.models.segmentation.prediction import (
    LabelRule,
    best_synonyms,
    class_probabilities,
    minmax,
    resize,
)
from mmclipdis.models.segmentation.query_text import FOLLOW_DATASET, QueryText
from mmclipdis.models.segmentation.samples import refuse_padding
from mmclipdis.models.segmentation.surgery import (
    check_redundant,
    check_several,
    feature_surgery,
    query_weights,
)
from mmclipdis.models.text_encoder import dense_option
from mmclipdis.utils.finite import check_scores


@MODELS.register_module()
class CosineSegHead(ScoreScale, QueryText):
    r"""Scores of the patches: :math:`\ell_{qp} = s \cdot \cos(f_p, t_q)` for query q and patch p.

    Used by :class:`OpenVocabSegmentor`, which applies the published order of operations, and as
    ``decode_head`` of mmseg's stock ``EncoderDecoder``. There :meth:`predict` returns class
    probabilities of the window, which mmseg averages over windows, resizes to the photo and takes
    the argmax of. Two things differ from the published order, and only there: probabilities
    instead of cosines are averaged, and the background threshold, put under the probability of the
    background as a floor, acts on the averaged and resized map. A window cannot know which classes
    are small in the photo, so ``area_thd`` is refused there.

    Args:
        text_encoder, vocabulary, templates, embeddings: see
            :class:`~mmclipdis.models.segmentation.query_text.QueryText`.
        logit_scale: :math:`s`, the inverse softmax temperature; ``'file'`` is the learned one of
            the text encoder's weights. (Cosines of SigLIP are much smaller than CLIP's: take the
            file's there before a ``prob_thd``.)
        projector: DCLIP's projectors, a checkpoint of one of its runs or the module: the map and
            the class embeddings are projected before they are compared.
        any_arch: take projectors of any CLIP of the right width.
        score_norm: what is done to the cosines before ``logit_scale``; needs
            :class:`OpenVocabSegmentor`, if not ``redundant``. ``'minmax'`` spreads those of every
            query over 0..1 within an image (DCLIP's early code). ``'surgery'`` weights them in
            every window by how likely its image embedding makes the query, and takes off their mean
            over the queries (:mod:`mmclipdis.models.segmentation.surgery`): ``logit_scale`` is then
            the factor on weighted cosines, whose weights are 1 on average, and ``prob_thd`` stays a
            bound on their softmax, to be chosen anew.
        redundant: with ``score_norm='surgery'``, ``'empty'`` takes the embedding of the empty text
            off every query in place of weights and mean. Heat maps of single words change by it,
            labels and probabilities do not.
        prob_thd: background wherever the best class probability is strictly below it. Where no
            class is the background, such pixels get no class
            (:func:`~mmclipdis.utils.labels.no_class`: 255); ``EncoderDecoder`` has no such label,
            and the threshold is refused there.
        background: ``'query'``: the background is a class with names like any other.
            ``'threshold'``: none of its names is asked for, it is only what is below ``prob_thd``
            (GEM, DCLIP: ``logit_scale=100, prob_thd=0.85``).
        background_index: class that :attr:`prob_thd` falls back to, see ``QueryText``.
        area_thd: share of the foreground below which a class is dropped (SCLIP, VOC21: 0.1), where
            a class is the background; only under :class:`OpenVocabSegmentor`.
        num_classes: checked against the vocabulary; needed only under ``EncoderDecoder`` when the
            vocabulary follows the data set.
        in_index: which of the backbone's outputs is the dense map in the joint space.
        ignore_index: label without loss.
        loss_decode: config of the loss on class scores when a trainable backbone is fine-tuned.
        redundant: see ``score_norm``.
        score: ``'softmax'`` over all queries, or ``'sigmoid'``, :math:`\sigma(\ell_{qp} + b)` of
            each query alone, as SigLIP was trained: then the background (``prob_thd``) is where no
            class is that probable. Labels without a threshold are the same. Nobody has published
            it for segmentation.
        logit_bias: :math:`b` of the sigmoid: a number, or ``'file'`` with the file's scale.

    Raises:
        ValueError: as ``QueryText``, or thresholds and options that contradict each other.
    """

    #: Bilinear resizing uses half-pixel centres, as all reference codes do.
    align_corners = False
    #: Of a single class ``EncoderDecoder`` makes label 1 above it, and there is label 0 only.
    threshold = float("inf")

    def __init__(
        self,
        text_encoder: Mapping[str, Any] | torch.nn.Module | None = None,
        vocabulary: Any = FOLLOW_DATASET,
        templates: Any = "imagenet80",
        embeddings: Tensor | str | Path | None = None,
        logit_scale: float | str = 50.0,
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
        redundant: str | None = None,
        score: str = "softmax",
        logit_bias: float | str | None = None,
    ) -> None:
        super().__init__(
            text_encoder,
            vocabulary,
            templates,
            embeddings,
            ask_background=check_background(background, prob_thd) == "query",
            background_index=background_index,
            num_classes=num_classes,
            init_cfg=init_cfg,
        )
        self.take_scale(logit_scale, score, logit_bias, self.text_encoder)
        self.prob_thd = _in_range("prob_thd", prob_thd, 0.0, 1.0)
        self.background = background
        if score_norm not in (None, "minmax", "surgery"):
            raise ValueError(f"score_norm must be None, 'minmax' or 'surgery', got {score_norm!r}")
        if score_norm is not None and score != "softmax":
            raise ValueError(
                f"score={score!r} is of cosines as they are, and score_norm={score_norm!r} changes "
                "them: leave one of the two out"
            )
        check_redundant(redundant, score_norm, self.text_encoder)
        self.score_norm = score_norm
        self.redundant = redundant
        self.area_thd = None if area_thd is None else _in_range("area_thd", area_thd, 0.0, 1.0)
        self.in_index = in_index
        self.ignore_index = ignore_index
        loss = dict(loss_decode or {"type": "CrossEntropyLoss", "avg_non_ignore": True})
        self.loss_decode = MODELS.build(loss)
        self.any_arch = any_arch
        ready = self._embeddings if self._are_given else None
        self.projector = build_projector(projector, self.text_encoder, ready, any_arch)

    @property
    def out_channels(self) -> int | None:
        """Channels of :meth:`predict`: one a class."""
        return self.num_classes

    @property
    def needs_cls(self) -> bool:
        """Whether :meth:`scores` needs the image embedding, and all classes at once."""
        return self.score_norm == "surgery" and self.redundant is None

    def rule(self) -> LabelRule:
        """How the query scores of this head become labels.

        Raises:
            RuntimeError: no vocabulary has been set.
        """
        self.embeddings()
        vocabulary = self._vocabulary
        if self.prob_thd > 0 and self.background_class is None:
            warnings.warn(
                f"prob_thd={self.prob_thd}, and none of the class names is the background: pixels "
                "whose best class is less probable get no class; name a class 'background', or set "
                "prob_thd=0",
                stacklevel=2,
            )
        return LabelRule(
            query_to_class=self.query_to_class,
            num_classes=vocabulary.num_classes if vocabulary else 0,
            prob_thd=self.prob_thd,
            background_index=self.background_class,
            # There is no foreground to have a share of without a background.
            area_thd=None if self.background_class is None else self.area_thd,
            bias=self.logit_bias,
        )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits float32 (B, Q, h, w) of the backbone's dense map (B, E, h, w).

        Always in float32, under AMP too: at scale 50 the steps of a half-precision cosine are
        0.012 logits, visible as ties.

        Raises:
            ValueError: as :meth:`scores`.
        """
        return self.scores(inputs[self.in_index])

    def scores(self, features: Tensor, cls: Tensor | None = None) -> Tensor:
        """As :meth:`forward`, of the map (B, E, h, w) alone.

        Args:
            features: The dense map.
            cls: Image embeddings (B, E), if the head :attr:`needs_cls`.

        Raises:
            ValueError: a map of another CLIP, or feature surgery without image embeddings or with
                one class.
        """
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
            if self.redundant is not None:
                text = torch.cat([text, self._empty_text().to(text)[None]])
            if self.projector is not None:
                tokens, text = self.projector(features.movedim(1, -1), text)
                features, text = tokens.movedim(-1, 1), F.normalize(text, dim=1)
            if self.redundant is not None:
                text = text[:-1] - text[-1:]
            cosines = scaled_cosines(features, text, self.logit_scale)
            if not self.needs_cls:
                return cosines
            return feature_surgery(cosines, self._query_weights(cls, text, features.shape[1]))

    def _query_weights(self, cls: Tensor | None, text: Tensor, channels: int) -> Tensor:
        if cls is None:
            raise ValueError(
                "score_norm='surgery' needs the image embedding of every window: use "
                "type='OpenVocabSegmentor' as the model, set redundant='empty', or leave it out"
            )
        check_several(self._asked.class_names if self._asked else ())
        cls = like_map(cls, channels).to(text)
        return query_weights(cls if self.projector is None else self.projector.image(cls), text)

    def _empty_text(self) -> Tensor:
        assert self._asked is not None  # there are embeddings
        option = dense_option(self.text_encoder)
        empty: Tensor = self.text_encoder.embed_empty(self._asked.templates, **option)
        return empty

    def normalized(self, maps: Tensor) -> Tensor:
        """Logits (n, Q, gh, gw) of an image's n windows as ``score_norm`` wants them."""
        return self.logit_scale * minmax(maps) if self.score_norm == "minmax" else maps

    def predict(
        self, inputs: Sequence[Tensor], batch_img_metas: Sequence[Mapping[str, Any]], test_cfg: Any
    ) -> Tensor:
        """Class probabilities (B, C, H, W) at window size, as ``EncoderDecoder`` expects them.

        ``test_cfg`` belongs to ``EncoderDecoder`` and says nothing to a head.

        Raises:
            ValueError: there is an ``area_thd``, a ``score_norm`` that looks at more than a patch,
                or a ``prob_thd`` and no background; an image that its pipeline has padded; or
                scores are not finite.
        """
        check_weights(self)
        for name in ("area_thd", "score_norm"):
            if getattr(self, name) not in (None, "surgery"):  # which speaks for itself
                raise ValueError(
                    f"{name}={getattr(self, name)!r} needs the whole photo, not a window of it: "
                    f"use type='OpenVocabSegmentor' as the model, or leave {name} out"
                )
        for meta in batch_img_metas:
            refuse_padding(meta)
        logits = self.forward(inputs)
        for maps, meta in zip(logits, batch_img_metas, strict=False):  # a slide has more windows
            check_scores(maps, meta)
        logits = resize(logits, _window_size(batch_img_metas[0]))
        if self.prob_thd > 0 and self.background_class is None:
            raise ValueError(
                f"prob_thd={self.prob_thd} needs a background among the classes of a stock "
                "segmentor: name a class 'background' or give background_index, use "
                "type='OpenVocabSegmentor' as the model, or set prob_thd=0"
            )
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
                ``score_norm``, ``score='sigmoid'`` or ``background='threshold'``.
        """
        if self.score_norm or self.score == "sigmoid" or self.background == "threshold":
            raise ValueError(
                "score_norm, score='sigmoid' and background='threshold' only predict: leave them "
                "out in training"
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
        counted = joint_count(self.loss_decode, target, rule.num_classes, self.ignore_index)
        value = self.loss_decode(scores, target, ignore_index=self.ignore_index, **counted)
        hit = accuracy(scores, target, ignore_index=self.ignore_index)
        return {self.loss_decode.loss_name: value, "acc_seg": hit}


def scaled_cosines(features: Tensor, text: Tensor, scale: float) -> Tensor:
    """``scale`` times the cosines (B, Q, h, w) of a map (B, E, h, w) with unit texts (Q, E).

    With other texts it is ``scale`` times the products with them.
    """
    unit = F.normalize(features, dim=1)
    # A product and no convolution: cudnn's run in TF32 unless told otherwise.
    weight = text * scale
    return (weight @ unit.flatten(2)).unflatten(2, unit.shape[2:])


def _in_range(name: str, value: float, low: float, high: float) -> float:
    if not isinstance(value, Real) or not low <= value <= high:
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
