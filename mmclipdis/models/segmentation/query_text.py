"""The names that a head compares patches with, and their text embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.engine.random_weights import before_use, watch_weights
from mmclipdis.models.class_text import TextEmbeddings
from mmclipdis.models.segmentation.class_queries import ClassQueries
from mmclipdis.models.segmentation.ready_embeddings import load_ready_embeddings
from mmclipdis.models.text_encoder import build_vocabulary, dense_option

FOLLOW_DATASET = "dataset"


class QueryText(TextEmbeddings):
    """Base of a head whose classes have one or more names, each with a constant text embedding.

    The embeddings are a buffer that is not saved: they follow the vocabulary and the weights of the
    text encoder, and are computed when first needed.

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
        ask_background: whether the names of the background are among the queries.
        background_index: which class of the first vocabulary is the background; None for the one
            that the vocabulary itself says or names so
            (:attr:`~mmclipdis.clip.text.vocabulary.Vocabulary.background`), if there is one. In
            later vocabularies it is the class of the same name: a place in one list says nothing
            of another.
        num_classes: checked against the vocabulary; None for any number.
        init_cfg: as in mmengine.

    Attributes:
        query_to_class: class of every query, (Q,) int64.
        background_class: the background among the classes in use; None if none of them is.

    Raises:
        ValueError: neither or both of ``text_encoder`` and ``embeddings``, a text encoder with
            trainable weights, or shapes and counts that contradict each other.
    """

    tensors_of_names = ("_embeddings", "query_to_class")
    #: What ``set_vocabulary`` changes.
    state_of_names = (
        *("_vocabulary", "_asked", "_embeddings", "query_to_class"),
        *("background_class", "_background_name"),
    )

    def __init__(
        self,
        text_encoder: Mapping[str, Any] | torch.nn.Module | None,
        vocabulary: Any,
        templates: Any,
        embeddings: Tensor | str | Path | None,
        ask_background: bool = True,
        background_index: int | None = None,
        num_classes: int | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg=dict(init_cfg) if init_cfg else None)
        if (text_encoder is None) == (embeddings is None):
            raise ValueError(
                f"{type(self).__name__} needs either a text_encoder or ready embeddings"
            )
        self.text_encoder: Any = text_encoder
        if isinstance(text_encoder, Mapping):
            self.text_encoder = MODELS.build(text_encoder)
            watch_weights(self.text_encoder)
        if text_encoder is not None and any(
            p.requires_grad for p in self.text_encoder.parameters()
        ):
            raise ValueError(
                f"{type(self).__name__} takes class embeddings as constants and would not train "
                "its text_encoder: give it trainable=(), and train the backbone"
            )
        self.templates = templates
        self.ask_background = ask_background
        self.background_index = background_index
        self.background_class: int | None = None
        self._background_name: str | None = None  # of the class that background_index is
        self.follow_dataset = isinstance(vocabulary, str) and vocabulary == FOLLOW_DATASET
        self._expected_classes = num_classes
        self._vocabulary: Vocabulary | None = None
        self._asked: Vocabulary | None = None  # without the background, if that has no query
        self._are_given = embeddings is not None
        self._embeddings = (
            None if embeddings is None else F.normalize(load_ready_embeddings(embeddings), dim=-1)
        )
        self.query_to_class = torch.empty(0, dtype=torch.long)
        if not self.follow_dataset:
            self.set_vocabulary(vocabulary)

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary in use; None while one that follows the data set is not known yet."""
        return self._vocabulary

    @property
    def has_ready_embeddings(self) -> bool:
        """Whether the embeddings were given, and no text encoder makes those of other names."""
        return self._are_given

    @property
    def num_classes(self) -> int | None:
        """Number of classes C, if known."""
        known = self._vocabulary
        return self._expected_classes if known is None else known.num_classes

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
        background = self._background_of(new)
        asked = ClassQueries.of(new, None if self.ask_background else background)
        ready = self._embeddings if self._are_given else None
        if embeddings is not None:
            ready = F.normalize(embeddings.to(self.query_to_class.device), dim=-1)
        if ready is not None and len(ready) != len(asked.classes):
            raise ValueError(
                f"{len(ready)} ready embeddings for {len(asked.classes)} queries; pass "
                "the embeddings of the new queries, or use a text_encoder"
            )
        self._embeddings = ready
        self._vocabulary, self._asked = new, asked.vocabulary
        self.background_class = background
        if self.background_index is not None and self._background_name is None:
            self._background_name = new.class_names[self.background_index]
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
                before_use(self.text_encoder)
                option = dense_option(self.text_encoder)
                embedded = self.text_encoder.embed(self._asked, **option).clone()
                embedded = embedded.to(self.query_to_class.device)
            if torch.jit.is_tracing():  # which loads no weights
                return embedded  # type: ignore[no-any-return]
            self._embeddings = embedded
        if self._embeddings is None:
            raise RuntimeError("no embeddings for this vocabulary")
        return self._embeddings

    def _background_of(self, new: Vocabulary) -> int | None:
        if self.background_index is None:
            return new.background
        if self._background_name is None:
            if not 0 <= self.background_index < new.num_classes:
                raise ValueError(
                    f"background_index={self.background_index} is no class of a vocabulary of "
                    f"{new.num_classes}"
                )
            return self.background_index
        if new.background is None and self._background_name in new.class_names:
            return new.class_names.index(self._background_name)
        return new.background
