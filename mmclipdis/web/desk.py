"""What the page does, without the page: models that stay loaded, results that stay a while."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmclipdis import apis
from mmclipdis.apis.inferencers.base import OpenVocabInferencer
from mmclipdis.apis.results import HeatMap, Result
from mmclipdis.apis.results.detections import DRAWN
from mmclipdis.web.inputs import (
    clean_name,
    read_typed_background,
    read_typed_words,
    read_uploaded_photo,
)

#: Models and results that stay in memory; the one that was not used for longest goes.
KEPT_MODELS, KEPT_RESULTS = 2, 8
#: Most numbers that a segmentation makes, one for each word and pixel: 2 GB of them.
MOST_SCORES = 500_000_000
#: Least score that the page shows at first: that of pictures of boxes, or 0, the model's own.
THRESHOLDS = {"segment": 0.0, "detect": DRAWN, "tag": 0.0}


@dataclass(frozen=True)
class Question:
    """What a visitor asks.

    Attributes:
        photo: file of the upload.
        name: what the visitor calls it.
        words: as they were typed.
        task: ``'segment'``, ``'detect'`` or ``'tag'``.
        model: a name that the page offers for the task.
        background: as it was typed: words, a number or nothing.
        threshold: least score in [0, 1]; 0 is the model's own.
    """

    photo: Path
    name: str
    words: str
    task: str
    model: str
    background: str = ""
    threshold: float = 0.0


class Desk:
    """Answers questions, one at a time.

    Args:
        offered: Task -> names of models that may be asked for.
        folder: The only one that photos are read from.
        device: As of the inferencers.
        most_pixels: Of a photo.
    """

    def __init__(
        self,
        offered: Mapping[str, Sequence[str]],
        folder: Path,
        device: str | None = None,
        most_pixels: int = 16_000_000,
    ) -> None:
        self.offered, self.device, self.most_pixels = dict(offered), device, most_pixels
        self.folder = folder.resolve()
        self._models: OrderedDict[Any, OpenVocabInferencer] = OrderedDict()
        self._results: OrderedDict[Any, Result] = OrderedDict()
        self._turn = threading.RLock()

    def answer(self, question: Question) -> Result:
        """The result; at once if the same was asked shortly before.

        Raises:
            FileNotFoundError, ValueError: the photo, the words or the model are not usable.
        """
        self._check(question)
        words = read_typed_words(question.words)
        background = read_typed_background(question.background)
        with self._turn:
            stamp = question.photo.stat()
            key = (question, stamp.st_mtime_ns, stamp.st_size)
            return _kept(
                self._results, KEPT_RESULTS, key, self._search, question, words, background
            )

    def heat(self, question: Question, word: str) -> HeatMap:
        """Where the photo of a question looks like one word.

        Raises:
            FileNotFoundError, ValueError: as :meth:`answer`, or no such map.
        """
        with self._turn:
            found: HeatMap = self.answer(question).heatmap(word)
            return found

    def _check(self, question: Question) -> None:
        """Refuse what a browser could send and the page does not offer."""
        if question.task not in self.offered:
            raise ValueError(f"there is no task {str(question.task)[:40]!r}")
        if question.model not in self.offered[question.task]:
            raise ValueError(
                f"this page does not offer the model {str(question.model)[:60]!r} to "
                f"{question.task}; choose one of the list"
            )
        if not question.photo.resolve().is_relative_to(self.folder):
            raise ValueError("the photo was not uploaded to this page; upload it")
        if not question.photo.is_file():  # uploads go after an hour
            raise FileNotFoundError("the photo is no longer on the server; upload it again")

    def _search(
        self, question: Question, words: list[list[str]], background: list[str] | float | None
    ) -> Result:
        name = clean_name(question.name)
        photo = read_uploaded_photo(question.photo, name, self.most_pixels)
        if question.task == "segment":
            _check_scores(photo, len(words))
        key = (question.task, question.model)
        inferencer = _kept(self._models, KEPT_MODELS, key, self._load, *key)
        threshold = question.threshold or None
        if isinstance(background, float) and threshold == THRESHOLDS[question.task]:
            threshold = None  # nobody moved it: the background is the least score
        result: Result = inferencer(
            photo, words, background=background, threshold=threshold, show_progress=False
        )[0]
        return replace(result, path=Path(name))  # type: ignore[type-var]

    def _load(self, task: str, model: str) -> OpenVocabInferencer:
        inferencer: OpenVocabInferencer = getattr(apis, apis.INFERENCERS[task])(
            model, device=self.device
        )
        return inferencer


def _check_scores(photo: np.ndarray, words: int) -> None:
    """Refuse a segmentation that would take too much memory.

    Raises:
        ValueError: naming both numbers.
    """
    pixels = photo.shape[0] * photo.shape[1]
    if pixels * words > MOST_SCORES:
        raise ValueError(
            f"{words} words on {pixels:,} pixels are more than this page segments at once; use "
            f"up to {MOST_SCORES // pixels} words, or a smaller photo"
        )


def _kept(
    store: OrderedDict[Any, Any], most: int, key: Any, make: Callable[..., Any], *given: Any
) -> Any:
    """What a store has for a key; if nothing, it is made, and the oldest goes."""
    if key not in store:
        while len(store) >= most:  # first, so that both are never in memory
            store.popitem(last=False)
        store[key] = make(*given)
    store.move_to_end(key)
    return store[key]
