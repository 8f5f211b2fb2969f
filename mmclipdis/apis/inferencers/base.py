"""What the inferencers of all three tasks share: photos and words in, results out."""

from __future__ import annotations

import difflib
import inspect
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from torch import nn
from tqdm import tqdm

from mmclipdis.apis.inferencers.asked import Asked, always, other_count, paired, with_words
from mmclipdis.apis.inferencers.building import built
from mmclipdis.apis.inferencers.photos import count_of, photos_of
from mmclipdis.apis.inferencers.search import PRECISIONS, PhotoSearch, first_number
from mmclipdis.apis.inferencers.turn import Turn
from mmclipdis.apis.inferencers.words import (
    NO_WORDS,
    Backdrop,
    Background,
    Words,
    check_backdrop,
    check_lengths,
    read_background,
)
from mmclipdis.apis.results.base import Result
from mmclipdis.clip.text.names import names_of_text
from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.engine.moved_pixels import check_test_pipeline
from mmclipdis.utils.device import usable_device


class OpenVocabInferencer(PhotoSearch):
    """Base: a loaded model that takes photos and words; mmengine's ``BaseInferencer`` for them.

    Args:
        model: a config file, a config, a name of :func:`mmclipdis.models`, a built model (then its
            weights are taken as they are), or None for the tiny model of the task that comes with
            the package.
        weights: trained weights, a file or URL; without it those that come with the name, or the
            weights that the config's ``init_cfg`` name. Only with a config.
        device: ``'cuda'``, ``'cpu'``, ...; None for a GPU if there is one.
        cfg_options: settings that replace those of the config; a config object stays as it is.
        pipeline: test pipeline for a built model without config; None keeps photos as they are.
        checkpoint: an older name of ``weights``.
        precision: ``'fp32'``, or ``'bf16'`` or ``'fp16'`` for the layers that PyTorch's autocast
            runs so; scores are made in fp32 all the same.
        templates: prompts in place of the model's: a name (``'single'``, ``'imagenet80'``,
            ``'vild63'``) or patterns such as ``'a photo of a {}.'``.

    Raises:
        FileNotFoundError: no such config or weights.
        ValueError: a model of another task or one that takes no words, weights that do not fit or
            are missing, or options that do not go together.
    """

    #: ``'segment'``, ``'detect'`` or ``'tag'``.
    task: ClassVar[str]
    #: What a call of this task takes beside.
    call_options: ClassVar[tuple[str, ...]] = ()
    #: Of mm's registries, where a built model says none.
    usual_scope: ClassVar[str]

    def __init__(
        self,
        model: str | Path | Config | nn.Module | None = None,
        weights: str | Path | None = None,
        device: str | torch.device | None = None,
        cfg_options: Mapping[str, Any] | None = None,
        pipeline: Sequence[Mapping[str, Any]] | None = None,
        *,
        checkpoint: str | Path | None = None,
        precision: str = "fp32",
        templates: Any = None,
    ) -> None:
        # Not mmengine's: it loads what fits of a checkpoint, and would leave the rest random.
        if weights is not None and checkpoint is not None:
            raise ValueError("weights and checkpoint are two names of one thing: give one")
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        self.device = usable_device(device)
        self.precision = precision
        self.turn = Turn()
        found = built(model, checkpoint if weights is None else weights, self.task, cfg_options)
        self.model: Any = found.model.to(self.device).eval()
        self.config = self.cfg = found.config
        self.metainfo = found.metainfo
        self.scope = (self.config or {}).get("default_scope") or self.usual_scope
        self.vocabulary_owner: Any = self._vocabulary_owner()
        with DefaultScope.overwrite_default_scope(self.scope):
            self.pipeline = self._init_pipeline(pipeline)
        check_test_pipeline(self.pipeline.transforms[1:], self.model, "the inferencer")
        self.collate_fn = pseudo_collate
        if templates is not None:
            self._set_templates(templates)
        self._kept: Vocabulary | None = None
        self._own: Vocabulary | None = None
        self._current: Asked | None = None

    def __call__(
        self,
        sources: Any,
        words: Words | None = None,
        *,
        texts: str | Sequence[Any] | None = None,
        custom_entities: bool = False,
        batch_size: int = 1,
        background: Background = None,
        threshold: float | None = None,
        out_dir: str | Path | None = None,
        show_progress: bool | None = None,
        return_results: bool = True,
        **options: Any,
    ) -> list[Any]:
        """Search photos for words.

        Args:
            sources: a file, folder, pattern (``'trip/*.jpg'``), address or video, an RGB array, a
                Pillow image, or a list or generator of these.
            words: what to look for: a list of words (or of lists of synonyms), a dict of words to
                synonyms, a text (``'sky, road, [car, van]'`` or ``'sky, road, car; van'``: three
                words, the third, ``car``, with the synonym ``van``), a class file, or what a config
                has for ``vocabulary``. None keeps the words of the last call or, before there are
                any, the model's.
            texts: in place of words, as mmdet's ``DetInferencer`` takes them: a text for all photos
                (``'kite . red apple'``), or a list of texts or of lists of names, one a photo. The
                words of the last call stay.
            custom_entities: a text lists names for sure, and is no sentence.
            batch_size: photos that are encoded together.
            background: a word or words of what is not looked for, which photos are compared with,
                too; or a number: ``threshold``. What it does to results says the task's class.
            threshold: least score, in [0, 1].
            out_dir: also write each result as a picture into this folder, as ``0000_PHOTO.png`` and
                on from the largest number that is there.
            show_progress: a bar; None for one on terminals only.
            return_results: False gives an empty list, for photos without end and ``out_dir``.
            options: of the task; see its class.

        Returns:
            One result a photo, in order.

        Raises:
            FileNotFoundError, ValueError: a photo that cannot be read, or bad words.
        """
        stream = self.stream(
            sources,
            words,
            texts=texts,
            custom_entities=custom_entities,
            batch_size=batch_size,
            background=background,
            threshold=threshold,
            **options,
        )
        first = None if out_dir is None else first_number(Path(out_dir))
        results = []
        hidden = None if show_progress is None else not show_progress
        total = None if hidden else count_of(sources)
        for number, result in enumerate(tqdm(stream, total=total, disable=hidden, leave=False)):
            if out_dir is not None and first is not None:
                self.visualize([result], out_dir=out_dir, first=first + number)
            if return_results:
                results.append(result)
        return results

    def stream(
        self,
        sources: Any,
        words: Words | None = None,
        *,
        texts: str | Sequence[Any] | None = None,
        custom_entities: bool = False,
        batch_size: int = 1,
        background: Background = None,
        threshold: float | None = None,
        on_error: str = "raise",
        **options: Any,
    ) -> Iterator[Any]:
        """Results one after the other, as soon as they are there; memory stays the same.

        Args:
            on_error: ``'raise'``, or ``'yield'``: a photo that cannot be read or searched gives a
                :class:`~mmclipdis.apis.inferencers.photos.Failure`, and the next one follows.
            sources, words, texts, custom_entities, batch_size, background, threshold, options: as
                of a call.

        Raises:
            FileNotFoundError, ValueError: at once: bad words or options, no photos. Later: a photo,
                after the results of those before it.
        """
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
            raise ValueError(f"batch_size must be an int of at least 1, got {batch_size!r}")
        if on_error not in ("raise", "yield"):
            raise ValueError(f"on_error must be 'raise' or 'yield', got {on_error!r}")
        backdrop = read_background(background, threshold)
        self._check_options(options)
        photos = photos_of(sources)
        one_each = texts is not None and not isinstance(texts, str)
        if texts is None:
            if custom_entities:
                raise ValueError(
                    "custom_entities=True says how to read texts=..., which is not given"
                )
            with self.turn:
                asked = always(self._ask(words, backdrop, options))
        else:
            if words is not None:
                raise ValueError(
                    "give one of words=..., names=... or texts=..., not both: each says what to "
                    "look for"
                )
            listed = [texts] if isinstance(texts, str) else list(texts)
            count = count_of(sources) if one_each else None
            if count is not None and len(listed) != count:
                raise ValueError(other_count(len(listed), count))
            with self.turn:
                each = [
                    self._ask(names_of_text(text, custom_entities), backdrop, options, keep=False)
                    for text in listed
                ]
            asked = iter(each) if one_each else always(each[0])
        pairs = paired(photos, asked, one_each)
        return self._stream(pairs, batch_size, on_error == "yield")

    def reset_words(self) -> None:
        """Forget the words of the calls before: the next one without words takes the model's."""
        self._kept = None

    # what a task says

    @abstractmethod
    def _vocabulary_owner(self) -> Any:
        """The part of the model that takes words.

        Raises:
            ValueError: there is none.
        """

    @abstractmethod
    def _read(self, words: Any) -> Vocabulary:
        """Words as the model reads them."""

    @abstractmethod
    def _know_names(self) -> None:
        """Have the model know the classes of its data first, if it knows none."""

    @abstractmethod
    def _set_templates(self, templates: Any) -> None:
        """Take other prompts."""

    @abstractmethod
    def heat(self, result: Result, word: str) -> Any:
        """Heat map of a word; what ``result.heatmap(word)`` calls."""

    def _extend(self, known: Vocabulary, backdrop: Backdrop) -> tuple[Vocabulary, tuple[int, ...]]:
        """The vocabulary with the words of the background, and the class of each of its rows."""
        columns = (*range(known.num_classes), *(-1 for _ in backdrop.words))
        return with_words(known, backdrop), columns

    def _use(self, asked: Asked) -> None:
        """Have the model search for ``asked``."""
        if asked is not self._current:
            if self.vocabulary_owner.vocabulary is not asked.vocabulary:
                self.vocabulary_owner.set_vocabulary(asked.vocabulary)
            self._current = asked

    def _check_options(self, options: Mapping[str, Any]) -> None:
        for name in sorted({*options} - {*self.call_options}):
            known = [
                *inspect.signature(OpenVocabInferencer.__call__).parameters,
                *self.call_options,
            ]
            close = difflib.get_close_matches(name, known)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise TypeError(f"{type(self).__name__} takes no {name} in a call{hint}")

    def _check_asked(self, asked: Asked) -> None:
        """Refuse what makes no sense for the task, before the first photo."""

    def _ask(
        self,
        words: Any,
        backdrop: Backdrop,
        options: Mapping[str, Any],
        keep: bool = True,
    ) -> Asked:
        """Read words and background; words that ``keep`` stay for calls without any."""
        known: Any
        self._know_names()
        if self._own is None:
            self._own = self.vocabulary_owner.vocabulary
        changed = words is None and self._was_changed()
        if changed:
            known = self.vocabulary_owner.vocabulary
        elif words is None:
            known = self._kept or self._own
            if known is None:
                raise ValueError(NO_WORDS)
        else:
            known = self._read(words)
        check_backdrop(known.queries, backdrop)
        vocabulary, columns = self._extend(known, backdrop)
        check_lengths(self.model, vocabulary)
        asked = Asked(vocabulary, known.class_names, columns, backdrop, dict(options))
        self._check_asked(asked)
        if keep:
            self._kept = known
        if changed and vocabulary is known:
            self._current = asked
        return asked

    def _was_changed(self) -> bool:
        """Whether somebody has given the model other words since the last call."""
        now, ours = self.vocabulary_owner.vocabulary, self._current
        return ours is not None and now is not None and now.names != ours.vocabulary.names
