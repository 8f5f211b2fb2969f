"""Words are read as people write them; what can be read in two ways is refused."""

from __future__ import annotations

from typing import Any

import pytest

from mmclipdis.apis.inferencers.words import (
    Backdrop,
    check_backdrop,
    check_lengths,
    read_background,
    read_words,
)
from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.models.text_encoder import OpenCLIPTextEncoder, build_vocabulary
from tests.faults.endings import raises
from tests.tiny import tiny_arch

FORMS: list[tuple[Any, tuple[tuple[str, ...], ...]]] = [
    ("grass, sand, apple; plum", (("grass",), ("sand",), ("apple", "plum"))),
    ("grass, car; van,", (("grass",), ("car", "van"))),
    ("kite . red apple", (("kite",), ("red apple",))),
    ("sky, [car, van]", (("sky",), ("car", "van"))),
    (["sky", ["car", "van"]], (("sky",), ("car", "van"))),
    ({"car": ["van"], "sky": None}, (("car", "van"), ("sky",))),
    ("sky", (("sky",),)),
]


@pytest.mark.parametrize(("words", "names"), FORMS)
def test_forms_of_words(words: Any, names: tuple[tuple[str, ...], ...]) -> None:
    found = build_vocabulary(read_words(words))
    assert found is not None and found.names == names


def test_words_of_a_generator_are_all_read() -> None:
    assert read_words(word for word in ("sky", "road")) == ["sky", "road"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", "no words: give at least one class name"),
        ([], "no words: give at least one class name"),
        ("sky; car", "has semicolons"),
        ("sky, car; ", "a semicolon with no word beside it"),
        ({"sky", "car"}, "is a set, which has no order"),
        (5, "vocabulary=5"),
    ],
)
def test_words_that_are_none(words: Any, line: str) -> None:
    raises(line, lambda: build_vocabulary(read_words(words)))


def test_a_background_is_words_or_a_threshold() -> None:
    assert read_background("sky") == Backdrop(("sky",))
    assert read_background(["sky", "sea"], 0.5) == Backdrop(("sky", "sea"), 0.5)
    assert read_background("sky, sea;cloud,") == Backdrop(("sky", "sea", "cloud"))
    assert read_background(0) == Backdrop((), 0.0)
    assert read_background(None) == Backdrop()


@pytest.mark.parametrize(
    ("background", "threshold", "line"),
    [
        (1.5, None, r"score in \[0, 1\], got 1.5"),
        (0.5, 0.5, "are two thresholds: give one"),
        (True, None, "background=True: give a word"),
        ("", None, "background='' has no word"),
        ("sky,,sea", None, "background='sky,,sea' has no word"),
        (None, "x", r"score in \[0, 1\], got 'x'"),
        (None, float("nan"), r"score in \[0, 1\], got nan"),
    ],
)
def test_backgrounds_that_make_no_sense(background: Any, threshold: Any, line: str) -> None:
    raises(line, read_background, background, threshold)


def test_a_word_cannot_be_background_too() -> None:
    raises("'sky' is both among the words and the background", check_backdrop, ["Sky"],
           Backdrop(("sky",)))  # fmt: skip


def test_a_word_that_does_not_fit_is_named_with_its_length() -> None:
    encoder = OpenCLIPTextEncoder(dict(tiny_arch(), text_cfg=dict(
        context_length=16, vocab_size=49408, width=32, heads=2, layers=1)))  # fmt: skip
    words = Vocabulary((("sky",), ("a " * 14 + "tree",)), "single")
    line = r"the word 'a a a .* tree' does not fit: with its prompt it has 22 tokens, and .* 16"
    raises(line, check_lengths, encoder, words)
    check_lengths(encoder, Vocabulary((("sky",), ("a tree",)), "single"))
