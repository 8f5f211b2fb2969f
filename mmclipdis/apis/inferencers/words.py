"""Words as people type them, what counts as background, and words that are too long."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from torch import nn

from mmclipdis.clip.text.encoder import TextTower
from mmclipdis.clip.text.names import names_of_text, read_names
from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.models.text_encoder import typed_names

#: Class names, each with or without synonyms; see :func:`read_words`.
Words = str | Path | Sequence[str | Sequence[str]] | Mapping[str, Any]
#: A word or words of what is not looked for, or a probability, or nothing.
Background = str | Sequence[str] | float | None

NO_WORDS = "no words: give at least one class name, such as words=['cat', 'dog']"


@dataclass(frozen=True)
class Backdrop:
    """What ``background=`` says: further words that are not looked for, or a threshold."""

    words: tuple[str, ...] = ()
    threshold: float | None = None


def read_words(words: Any) -> Any:
    """What is typed in place of a config's vocabulary, for a model's ``set_vocabulary``.

    A list of words or of lists of synonyms, a dict of words to synonyms, a class file, a class list
    of the package (``'voc20'``), a data set, what a config has for ``vocabulary``, or a text. In a
    text words stand between commas (``'sky, road'``) or between points with blanks around them
    (``'sky . road'``, as in mmdet), or on lines of their own. Its synonyms stand in brackets
    (``'sky, [car, van]'``) or, where there are commas, between semicolons: ``'grass, sand, apple;
    plum'`` are three words, the third, ``apple``, with the synonym ``plum``.

    Raises:
        FileNotFoundError, ValueError: no words, or what can be read in two ways.
    """
    if isinstance(words, str):
        text = words.strip()
        if not text:
            raise ValueError(NO_WORDS)
        if " . " in text and "\n" not in text:
            return names_of_text(text, custom_entities=True)
        if ";" in text and "," in text and not set("[]\n") & set(text):
            return _with_semicolons(text)
    elif isinstance(words, Iterable) and not isinstance(words, (Mapping, Set, bytes, bytearray)):
        words = list(words)  # of a generator, too
        if not words:
            raise ValueError(NO_WORDS)
    return typed_names(words)


def _with_semicolons(text: str) -> list[list[str]]:
    """``'sky, car; van'``: two classes, the second with two names."""
    parts = [part.strip() for part in text.split(",")]
    if not parts[-1]:  # a comma at the end
        parts.pop()
    groups = [[name.strip() for name in part.split(";")] for part in parts]
    for group in groups:
        if not all(group):
            raise ValueError(
                f"{text[:60]!r} has a comma or a semicolon with no word beside it: write "
                "'sky, car; van' for two classes, the second with two names"
            )
    return [read_names([group])[0] for group in groups]


def read_background(background: Any, threshold: float | None = None) -> Backdrop:
    """What ``background=`` and ``threshold=`` say.

    Raises:
        ValueError: neither word nor number, a number outside [0, 1], or two thresholds.
    """
    words: tuple[str, ...] = ()
    if isinstance(background, Real) and not isinstance(background, bool):
        if threshold is not None:
            raise ValueError(
                f"background={background} and threshold={threshold} are two thresholds: give one"
            )
        threshold = float(background)
    elif background is not None:
        if isinstance(background, (bool, Mapping)) or not isinstance(background, Iterable):
            raise ValueError(
                f"background={background!r}: give a word, a list of words, a number in [0, 1], or "
                "None"
            )
        listed = read_names(
            re.split("[,;]", background.strip(" ,;")) if isinstance(background, str) else background
        )
        words = tuple(name.strip() for names in listed for name in names)
        if not words or not all(words):
            raise ValueError(f"background={background!r} has no word")
    if threshold is None:
        return Backdrop(words)
    if not isinstance(threshold, Real) or not 0 <= threshold <= 1:
        raise ValueError(f"the threshold is a score in [0, 1], got {threshold!r}")
    return Backdrop(words, float(threshold))


def check_backdrop(words: Sequence[str], backdrop: Backdrop) -> None:
    """Refuse a word that is looked for and is the background, too.

    Raises:
        ValueError: naming it.
    """
    both = {name.lower() for name in words} & {name.lower() for name in backdrop.words}
    if both:
        raise ValueError(
            f"{sorted(both)[0]!r} is both among the words and the background: leave it out of one"
        )


def check_lengths(model: nn.Module, vocabulary: Vocabulary) -> None:
    """Refuse words that do not fit the text tower, before the first photo is read.

    Raises:
        ValueError: naming the word, and how many tokens there are.
    """
    tower = next((part for part in model.modules() if isinstance(part, TextTower)), None)
    if tower is None:
        return
    longest = max(vocabulary.templates.render("x"), key=len)
    place = vocabulary.templates.render("x").index(longest)
    prompts = [vocabulary.templates.render(query)[place] for query in vocabulary.queries]
    room = 8 * tower.context_length
    lengths = tower.tokenizer.lengths(tower.tokenizer(prompts, room))
    worst = int(lengths.argmax())
    if int(lengths[worst]) > tower.context_length:
        word = vocabulary.queries[worst]
        short = word if len(word) <= 80 else f"{word[:77]}..."
        raise ValueError(
            f"the word {short!r} does not fit: with its prompt it has {int(lengths[worst])} "
            f"tokens, and the text tower reads {tower.context_length}; use a shorter word"
        )
