"""What photos are searched for: words as rows of a vocabulary, in step with the photos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmclipdis.apis.inferencers.photos import Source
from mmclipdis.apis.inferencers.words import Backdrop
from mmclipdis.clip.text.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Asked:
    """What photos are searched for.

    Attributes:
        vocabulary: as the model takes it, with the words of the background behind the others.
        names: the words, without those of the background: what results are called by.
        columns: class of each row of the vocabulary, -1 for the background.
        backdrop: what counts as background.
        options: of the task.
    """

    vocabulary: Vocabulary
    names: tuple[str, ...]
    columns: tuple[int, ...]
    backdrop: Backdrop
    options: Mapping[str, Any]


def with_words(known: Vocabulary, backdrop: Backdrop) -> Vocabulary:
    """A vocabulary with the words of a background as classes behind the others."""
    if not backdrop.words:
        return known
    names = (*known.names, *((word,) for word in backdrop.words))
    return Vocabulary(names, known.templates, known.background_index, known.allow_duplicates)


def flat_columns(known: Vocabulary, backdrop: Backdrop) -> tuple[Vocabulary, tuple[int, ...]]:
    """A vocabulary with one name a class: each synonym is one, with the class that it stands for.

    Behind them come the words of the background, whose class is -1.
    """
    names = (*((name,) for name in known.queries), *((word,) for word in backdrop.words))
    columns = (*known.query_to_class, *(-1 for _ in backdrop.words))
    if names == known.names:
        return known, columns
    flat = Vocabulary(names, known.templates, None, known.allow_duplicates)
    return flat, columns


def always(asked: Asked) -> Iterator[Asked]:
    """The same for every photo."""
    while True:
        yield asked


def paired(
    photos: Iterable[Source], asked: Iterator[Asked], one_each: bool
) -> Iterator[tuple[Source, Asked]]:
    """Photos and what each is searched for.

    Raises:
        ValueError: there are more photos than texts, or fewer.
    """
    number = 0
    for number, source in enumerate(photos, start=1):
        one = next(asked, None)
        if one is None:
            raise ValueError(other_count(number - 1, f"{number} or more"))
        yield source, one
    if one_each and (left := sum(1 for _ in asked)):
        raise ValueError(other_count(number + left, number))


def other_count(texts: int, photos: object) -> str:
    """What is wrong where there are not as many texts as photos."""
    return (
        f"{texts} texts for {photos} photos: give one text for all "
        "(texts='kite . red apple'), or a list of one a photo"
    )
