"""The classes of an open-vocabulary detector: their text, and which of them are novel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from mmclipdis.clip.text.templates import Templates
from mmclipdis.clip.text.vocabulary import Vocabulary, novel_flags
from mmclipdis.models.class_text import ClassText
from mmclipdis.models.text_encoder import build_vocabulary
from mmclipdis.utils.names import name_list

#: The class that detectors have of their own, in whatever words: what no box is around.
BACKGROUND = "background"


class DetectorText(ClassText):
    """Embeddings (K + W, D) of K classes and, behind them, of W words that are no classes.

    Checkpoints do not hold the text encoder: its ``init_cfg`` names its weights.

    Args:
        text_encoder, templates, text_embeddings, embed_dim: As in ``ClassText``. The last rows of a
            file of embeddings are the words.
        vocabulary: As in ``ClassText``, without the words.
        words: What the detector itself compares regions with, beside the classes.
        novel_classes: Names of the classes without labels in training, ``()`` if there are none;
            ``'dataset'``: ``metainfo['novel_classes']`` of the data set, through
            ``VocabularyHook``.

    Attributes:
        classes: The K classes; None as long as they are not known.
        novel: For each of them whether it is novel; None as long as that is not known.

    Raises:
        ValueError: as ``ClassText`` and :meth:`set_vocabulary`, or a string that is not
            ``'dataset'`` for novel classes.
    """

    def __init__(
        self,
        text_encoder: Mapping[str, Any] | nn.Module | None = None,
        vocabulary: Any = "dataset",
        templates: Templates = "vild63",
        text_embeddings: str | None = None,
        embed_dim: int | None = None,
        words: Sequence[str] = (),
        novel_classes: str | Sequence[str] = "dataset",
    ) -> None:
        if isinstance(novel_classes, str) and novel_classes != "dataset":
            raise ValueError(f"novel_classes must be 'dataset' or names, got {novel_classes!r}")
        super().__init__(
            text_encoder, "dataset", templates, text_embeddings, embed_dim, saved=False
        )
        self.words = name_list(words, "the words beside the classes")
        self.novel_classes = novel_classes
        self.classes: Vocabulary | None = None
        self.novel: tuple[bool, ...] | None = None
        self.follow_dataset = isinstance(vocabulary, str) and vocabulary == "dataset"
        if not self.follow_dataset:
            self.set_vocabulary(vocabulary)

    def set_vocabulary(self, vocabulary: Any, novel_classes: Sequence[str] | None = None) -> None:
        """Change the classes; if that fails, nothing changes.

        Args:
            vocabulary: What ``build_vocabulary`` reads, one name a class, without the words.
            novel_classes: Those of them that are novel; None: those that the config names, or it
                is not known.

        Raises:
            FileNotFoundError, ValueError: as ``ClassText.set_vocabulary``, a class of the
                background, one of the words, or a novel class that is no class.
        """
        new = build_vocabulary(vocabulary, templates=self.templates)
        if new is None:
            raise ValueError(f"vocabulary={vocabulary!r} names no classes; give names or a file")
        self._check_words(new)
        named = self.novel_classes if novel_classes is None else novel_classes
        novel = None if named == "dataset" else novel_flags(new.class_names, named)
        words = tuple((word,) for word in self.words)
        try:
            super().set_vocabulary(replace(new, names=(*new.names, *words)))
        except ValueError as error:
            if self.text_embeddings is None or not words:
                raise
            raise ValueError(
                f"{error}; of the detector's {new.num_classes + len(words)} rows for "
                f"{new.num_classes} classes the last row is that of "
                f"{', '.join(map(repr, self.words))}"
            ) from error
        self.classes = new
        self.novel = novel

    def set_novel(self, novel: Sequence[bool] | None) -> None:
        """Say for each of the K classes whether it is novel; where the config says so, it counts.

        Raises:
            ValueError: not one flag a class.
        """
        if self.novel_classes != "dataset":
            return
        known = 0 if self.classes is None else self.classes.num_classes
        if novel is not None and len(novel) != known:
            raise ValueError(f"{len(novel)} flags of novelty for {known} classes")
        self.novel = None if novel is None else tuple(novel)

    def _check_words(self, vocabulary: Vocabulary) -> None:
        folded = {name.lower() for name in vocabulary.queries}
        taken = {BACKGROUND, *(word.lower() for word in self.words)}
        if vocabulary.background_index is not None or folded & taken:
            own = ", ".join(map(repr, self.words or (BACKGROUND,)))
            raise ValueError(
                f"the vocabulary has a class of the background, or one named {own}, which the "
                "detector adds itself: leave that class out"
            )
