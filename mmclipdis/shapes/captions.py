"""Captions of ShapeScenes: sentences that name what is visible, in many wordings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import open_clip

from mmclipdis.shapes.world import CLASSES

# One slot: a single name, or a short list of them.
NAME_TEMPLATES: tuple[str, ...] = (
    *(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES),
    "A photo of a {} in the scene",
    "There is a {} in the scene.",
    "There is the {} in the scene.",
    "a photo of a {} in the scene.",
    "a photo of one {} in the scene.",
    "This is a {} in the scene.",
    "This is one {} in the scene.",
    "itap of a {}.",
    "itap of my {}.",
    "a photo of {}.",
    "a picture of a {}.",
    "a photo of {} and other things.",
    "{}",
    "a {}",
    "a {}.",
)
# Slots: the objects, then the grounds.
SCENE_TEMPLATES: tuple[str, ...] = (
    "{} on {}.",
    "{} lying on {}.",
    "a photo of {} on {}.",
    "a picture of {} on {}.",
    "There is {} on {}.",
    "a scene with {} on {}.",
    "a photo of {} in the scene, with {}.",
    "an image of {}, on {}.",
)
_WORDS = {name: re.compile(rf"\b{name}\b") for name in CLASSES}


def enumerate_names(names: Sequence[str], *, articles: bool) -> str:
    """``('apple', 'fish')`` -> ``'an apple and a fish'``, or ``'apple and fish'``."""
    words = [
        f"{'an' if name[0] in 'aeiou' else 'a'} {name}" if articles else name for name in names
    ]
    if len(words) < 2:
        return "".join(words)
    return ", ".join(words[:-1]) + " and " + words[-1]


def full_caption(rng: np.random.Generator, things: Sequence[str], grounds: Sequence[str]) -> str:
    """One sentence that names every object and every ground, each exactly once."""
    floor = enumerate_names(_shuffled(rng, grounds), articles=False)
    if not things:
        return _pick(rng, NAME_TEMPLATES).format(floor)
    objects = enumerate_names(_shuffled(rng, things), articles=bool(rng.random() < 0.8))
    if not grounds:
        return _pick(rng, ("a photo of {}.", "There is {}.", "{}")).format(objects)
    return _pick(rng, SCENE_TEMPLATES).format(objects, floor)


def partial_caption(rng: np.random.Generator, names: Sequence[str], count: int = 1) -> str:
    """One sentence that names up to ``count`` random ones of ``names``."""
    chosen = _shuffled(rng, names)[:count]
    return _pick(rng, NAME_TEMPLATES).format(enumerate_names(chosen, articles=False))


def names_in(caption: str, names: Iterable[str] = CLASSES) -> tuple[str, ...]:
    """The names of the world that occur in a caption as whole words, in the order of ``names``."""
    text = caption.lower()
    return tuple(name for name in names if _WORDS[name].search(text))


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _shuffled(rng: np.random.Generator, names: Sequence[str]) -> list[str]:
    return [names[int(i)] for i in rng.permutation(len(names))]
