"""The names that a data sample asks for itself, as those of mmdet's grounding models do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmclipdis.clip.text.names import names_of_text

#: Classes, each with its names (synonyms); it can be compared and is a vocabulary.
AskedNames = tuple[tuple[str, ...], ...]
#: What a pipeline must pack (``meta_keys``) for :func:`asked_names` to be read.
TEXT_KEYS = ("text", "custom_entities", "tokens_positive", "stuff_text")


def asked_names(sample: Any) -> AskedNames | None:
    """The classes that a data sample names as its ``text``; None for those of the model.

    Args:
        sample: A data sample, or its ``metainfo``. ``text`` is a text (``'kite . red apple'``) or a
            list, and ``custom_entities`` says that it lists names
            (:func:`~mmclipdis.clip.text.names.names_of_text`).

    Raises:
        ValueError: as ``names_of_text``; ``tokens_positive`` chooses parts of the text; or there is
            a ``stuff_text``.
    """
    if sample.get("stuff_text") is not None:
        raise ValueError(
            "stuff_texts names stuff of panoptic models, which is not read here: write all names "
            "into texts"
        )
    text = sample.get("text")
    if text is None:
        return None
    if sample.get("tokens_positive") is not None:
        raise ValueError(
            "tokens_positive chooses parts of the text by their places, which is not read here: "
            "write the names themselves, texts='kite . red apple', custom_entities=True"
        )
    return names_of_text(text, bool(sample.get("custom_entities", False)))


def by_asked_names(samples: Sequence[Any]) -> list[tuple[AskedNames | None, list[int]]]:
    """Which of the samples ask for the same names: (names, places), in order of appearance.

    Raises:
        ValueError: as :func:`asked_names`.
    """
    groups: dict[AskedNames | None, list[int]] = {}
    for place, sample in enumerate(samples):
        groups.setdefault(asked_names(sample), []).append(place)
    return list(groups.items())
