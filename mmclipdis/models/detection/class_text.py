"""The classes of an open-vocabulary detector: their text, and which of them are novel."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
        base: Folded names of all classes that were said to be base ones, thus had boxes in
            training; None as long as nobody said.

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
        self.base: frozenset[str] | None = None
        self._base_of_config: frozenset[str] | None = None
        self.follow_dataset = isinstance(vocabulary, str) and vocabulary == "dataset"
        if not self.follow_dataset:
            self.set_vocabulary(vocabulary)

    def set_vocabulary(self, vocabulary: Any, novel_classes: Sequence[str] | None = None) -> None:
        """Change the classes; if that fails, nothing changes.

        Args:
            vocabulary: What ``build_vocabulary`` reads, one name a class, without the words.
            novel_classes: Those of them that are novel; None: those that the config names (and
                what is none of its classes), or it is not known.

        Raises:
            FileNotFoundError, ValueError: as ``ClassText.set_vocabulary``, a class of the
                background, one of the words, or a novel class that is no class.
        """
        new = self._read(vocabulary)
        if novel_classes is None:
            novel = self._flags_of_config(new)
        else:
            novel = novel_flags(new.class_names, novel_classes)
        self._embed_also_words(new)
        self.classes = new
        self.novel = novel
        if novel is not None and novel_classes is not None:
            self._note_base(new, novel)
        elif novel is not None and self._base_of_config is None:
            self._note_base(new, novel)
            self._base_of_config = self.base

    def _flags_of_config(self, new: Vocabulary) -> tuple[bool, ...] | None:
        named = self.novel_classes
        if named == "dataset":
            return None
        if self._base_of_config is None or not named:
            return novel_flags(new.class_names, named)
        # Other names than those of which the config listed the novel ones may have come.
        known = self._base_of_config
        return tuple(name in named or _folded(name) not in known for name in new.class_names)

    def _read(self, vocabulary: Any) -> Vocabulary:
        new = build_vocabulary(vocabulary, templates=self.templates)
        if new is None:
            raise ValueError(f"vocabulary={vocabulary!r} names no classes; give names or a file")
        self.check_words(new)
        return new

    def _embed_also_words(self, new: Vocabulary) -> None:
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

    @contextmanager
    def asked(self, names: Any) -> Iterator[None]:
        """Have other classes inside the block, those that a data sample asks for.

        They are base ones where that is known of them, and else novel.

        Raises:
            ValueError: as :meth:`set_vocabulary`, or there is no text encoder to read them.
        """
        if self.text_embeddings is not None:
            raise ValueError(
                f"no text encoder reads the names that are asked for: the classes are those of "
                f"text_embeddings={self.text_embeddings!r}; give the box head a text_encoder"
            )
        kept = (self.classes, self.novel, self.vocabulary, self._embeddings)
        try:
            new = self._read(names)
            self._embed_also_words(new)
            self.classes, self.novel = new, None
            yield
        finally:
            self.classes, self.novel, self.vocabulary, self._embeddings = kept

    def flags(self) -> tuple[bool, ...]:
        """For each of the K classes whether scores treat it as novel, also where nobody said.

        A class is novel unless it is known to be a base class: nothing else says that the detector
        has seen boxes of it, so that CLIP's word about it counts.
        """
        if self.novel is not None or self.classes is None:
            return self.novel or ()
        if self.base is None:
            warnings.warn(
                f"nothing says which of the {self.classes.num_classes} classes had boxes in "
                "training, so that all count as novel, for which CLIP's word weighs more: give "
                "metainfo=dict(novel_classes=...) on the data set, a checkpoint that has it in its "
                "dataset_meta, or novel_classes=... on the box head (() if none is)",
                stacklevel=2,
            )
        base = self.base or ()
        return tuple(_folded(name) not in base for name in self.classes.class_names)

    def learn_base(self, metainfo: Mapping[str, Any]) -> tuple[bool, ...] | None:
        """Take from a ``dataset_meta`` which of its classes are novel, if it says so.

        Args:
            metainfo: ``classes``, and ``novel_classes`` or ``base_classes``, of a checkpoint.

        Returns:
            A flag for each of its classes, or None.

        Raises:
            ValueError: the lists are none, or name what is no class.
        """
        classes = metainfo.get("classes")
        novel, base = metainfo.get("novel_classes"), metainfo.get("base_classes")
        if not classes or (novel is None and base is None):
            return None
        where = "dataset_meta['{}_classes']".format
        if novel is not None:
            flags = novel_flags(classes, novel, where("novel"))
        else:
            flags = tuple(not flag for flag in novel_flags(classes, base or (), where("base")))
        self.base = frozenset(_folded(name) for name, flag in zip(classes, flags) if not flag)
        return flags

    def _note_base(self, classes: Vocabulary, novel: Sequence[bool]) -> None:
        flagged = list(zip(map(_folded, classes.class_names), novel))
        known = {name for name, flag in flagged if not flag} | (self.base or frozenset())
        self.base = frozenset(known - {name for name, flag in flagged if flag})

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
        if novel is not None and self.classes is not None:
            self._note_base(self.classes, novel)

    def check_words(self, vocabulary: Vocabulary) -> None:
        """Refuse classes that the detector adds itself; :meth:`set_vocabulary` does.

        Raises:
            ValueError: a class of the background, or one of the words.
        """
        folded = {name.lower() for name in vocabulary.queries}
        taken = {BACKGROUND, *(word.lower() for word in self.words)}
        if vocabulary.background_index is not None or folded & taken:
            own = ", ".join(map(repr, self.words or (BACKGROUND,)))
            raise ValueError(
                f"the vocabulary has a class of the background, or one named {own}, which the "
                "detector adds itself: leave that class out"
            )


class WithDetectorText:
    """Mixin of a head that names what it finds by a :class:`DetectorText`, its :attr:`text`."""

    text: DetectorText

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The classes in use, without the detector's own words, if known."""
        return self.text.classes

    @property
    def novel(self) -> tuple[bool, ...] | None:
        """For each class whether it is novel, if known."""
        return self.text.novel

    @property
    def follow_dataset(self) -> bool:
        """Whether the classes are those of the data set in use."""
        return self.text.follow_dataset

    def set_vocabulary(self, vocabulary: Any, novel_classes: Sequence[str] | None = None) -> None:
        """Change the classes; see ``DetectorText.set_vocabulary``."""
        self.text.set_vocabulary(vocabulary, novel_classes)
        self._use_classes()

    def set_novel(self, novel: Sequence[bool] | None) -> None:
        """Say which classes are novel; see ``DetectorText.set_novel``."""
        self.text.set_novel(novel)
        self._use_classes()

    @contextmanager
    def asked(self, names: Any) -> Iterator[None]:
        """Have other classes inside the block; see ``DetectorText.asked``."""
        with self.text.asked(names):
            yield

    def _use_classes(self) -> None:
        """What a subclass does when the classes have changed."""


def _folded(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())
