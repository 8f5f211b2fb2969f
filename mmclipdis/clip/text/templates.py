"""Prompt templates by name: how a class name becomes the sentences that the text tower reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from open_clip import OPENAI_IMAGENET_TEMPLATES

from mmclipdis.utils.coco_json import read_json


@dataclass(frozen=True)
class TemplateSet:
    """A named list of sentence patterns; ``{}`` stands for the class name.

    Args:
        name: How configs call it.
        formats: Patterns. Each holds ``{}`` once; with ``vild``, ``{article}`` is allowed too.
        vild: Prepare name and sentence the way ViLD does (see :meth:`render`).
        more: Whole sentences of single names, ``(name, sentences)`` each, which follow the patterns
            of this name (OV-Stitcher's class-biased templates). Names are compared as the
            tokenizer reads them: lower case, single blanks.

    Raises:
        ValueError: if there is no pattern, or one does not hold ``{}`` exactly once.
    """

    name: str
    formats: tuple[str, ...]
    vild: bool = False
    more: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __post_init__(self) -> None:
        if not self.formats:
            raise ValueError(
                f"template set {self.name!r} is empty; give at least one such as '{{}}'"
            )
        for pattern in self.formats:
            if not isinstance(pattern, str) or pattern.count("{}") != 1:
                raise ValueError(
                    f"template {pattern!r} must hold '{{}}' exactly once, where the class name goes"
                )

    def __len__(self) -> int:
        return len(self.formats)

    def render(self, name: str) -> tuple[str, ...]:
        """The prompts of one class name, in the order of :attr:`formats`, then its own.

        Ordinary sets put the name in as it is. A ViLD set (DeCLIP's region classification; Gu et
        al., ViLD, appendix) turns ``_`` into a space and ``/`` into " or ", lowers the case, drops
        trailing dots, chooses "a" or "an" by the first letter of the raw name, and puts "This is "
        before a sentence that starts with "a" or "the".
        """
        own = dict(self.more).get(_folded(name), ())
        return self._patterned(name) + own

    def _patterned(self, name: str) -> tuple[str, ...]:
        if not self.vild:
            return tuple(pattern.replace("{}", name) for pattern in self.formats)
        article = "an" if name[:1].lower() in tuple("aeiou") else "a"
        clean = name.replace("_", " ").replace("/", " or ").lower().rstrip(".")
        prompts = (p.replace("{article}", article).replace("{}", clean) for p in self.formats)
        return tuple(f"This is {p}" if p.startswith(("a", "the")) else p for p in prompts)

    def has_more(self, name: str) -> bool:
        """Whether a name has sentences of its own."""
        return _folded(name) in dict(self.more)

    def key(self) -> str:
        """Hash of what the set renders; its name does not matter."""
        content = json.dumps([self.formats, self.vild, *([self.more] if self.more else [])])
        return hashlib.sha256(content.encode()).hexdigest()


def _vild63() -> tuple[str, ...]:
    """The 63 patterns of ViLD as used by CLIPSelf and DeCLIP (declip spec 5.2)."""
    scene = [f"There is {a} {{}} in the scene." for a in ("{article}", "the")]
    scene += [f"a photo of {a} {{}} in the scene." for a in ("{article}", "the", "one")]
    plain = [f"itap of {a} {{}}." for a in ("{article}", "my", "the")]
    plain += [f"a photo of {a} {{}}." for a in ("{article}", "my", "the", "one", "many")]
    plain += [f"a {q} photo of {a} {{}}." for q in ("good", "bad") for a in ("{article}", "the")]
    looks = ("nice", "cool", "weird", "small", "large", "clean", "dirty", "hard to see")
    looked = [f"a photo of {a} {look} {{}}." for a in ("a", "the") for look in looks]
    qualities = (
        *("bright", "dark", "low resolution", "cropped", "close-up", "jpeg corrupted"),
        *("blurry", "pixelated", "black and white"),
    )
    taken = [f"a {q} photo of {a} {{}}." for q in qualities for a in ("{article}", "the")]
    kinds = ("plastic", "toy", "plushie", "cartoon")
    made = [f"{a} {kind} {{}}." for a in ("a", "the") for kind in kinds]
    made += ["an embroidered {}.", "the embroidered {}."]
    made += ["a painting of the {}.", "a painting of a {}."]
    return (*scene, *plain, *looked, *taken, *made)


#: TCL's nine, which TIPS segments with (encoders spec 3.5).
_TCL9 = (
    *("itap of a {}.", "a bad photo of a {}.", "a origami {}.", "a photo of the large {}."),
    *("a {} in a video game.", "art of the {}.", "a photo of the small {}."),
    *("a photo of many {}.", "a photo of {}s."),
)

#: ``imagenet80``: OpenAI's 80 ImageNet prompts (training-free methods). ``vild63``: DeCLIP's region
#: classification. ``catseg``: CAT-Seg's only prompt. ``single``: CLIP's plain prompt.
#: ``tcl9``: TIPS' segmentation.
TEMPLATES: dict[str, TemplateSet] = {
    "imagenet80": TemplateSet("imagenet80", tuple(t("{}") for t in OPENAI_IMAGENET_TEMPLATES)),
    "vild63": TemplateSet("vild63", _vild63(), vild=True),
    "single": TemplateSet("single", ("a photo of a {}.",)),
    "catseg": TemplateSet("catseg", ("A photo of a {} in the scene",)),
    "tcl9": TemplateSet("tcl9", _TCL9),
}

Templates = TemplateSet | str | Sequence[str] | Mapping[str, Any]


def get_templates(value: Templates) -> TemplateSet:
    """A template set by name, or from patterns of one's own.

    Args:
        value: A name of :data:`TEMPLATES`, one pattern with ``{}``, or a list of patterns; or a
            dict with such ``patterns`` and ``more``, sentences of single names: a dict from names
            to lists of sentences, or the JSON file of one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: for an unknown name (with the allowed ones), a pattern without ``{}``, and
            sentences that are none.
    """
    if isinstance(value, TemplateSet):
        return value
    if isinstance(value, Mapping):
        if set(value) != {"patterns", "more"}:
            raise ValueError(
                f"templates as a dict have the keys 'patterns' and 'more', got {sorted(value)}"
            )
        return replace(get_templates(value["patterns"]), name="custom", more=_more(value["more"]))
    if not isinstance(value, str):
        return TemplateSet("custom", tuple(value))
    if value in TEMPLATES:
        return TEMPLATES[value]
    if "{}" in value:
        return TemplateSet("custom", (value,))
    raise ValueError(
        f"unknown templates {value!r}; choose one of {', '.join(TEMPLATES)}, "
        "or give patterns such as 'a photo of a {}.'"
    )


def _more(value: Any) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Sentences of single names from a dict or its JSON file."""
    where = "templates' more"
    if isinstance(value, (str, Path)):
        where = repr(str(value))
        if not Path(value).is_file():
            raise FileNotFoundError(
                f"no file {where} of sentences of class names; templates=dict(more=...) needs a "
                "JSON file such as {'cat': ['a cat with whiskers.']}"
            )
        value = read_json(value, "name another")
    named = list(value.items()) if isinstance(value, Mapping) else []
    for name, sentences in named:
        listed = isinstance(sentences, Sequence) and not isinstance(sentences, str)
        if not listed or not all(isinstance(s, str) and s.strip() for s in sentences):
            raise ValueError(f"{where}: {name!r} has no list of sentences, but {sentences!r}")
    if not named:
        raise ValueError(f"{where} must be class names with lists of sentences each, and has none")
    found = {_folded(name): tuple(sentences) for name, sentences in named}
    if len(found) < len(named):
        raise ValueError(
            f"{where} has a name twice but for capitals and blanks: put its sentences in one list"
        )
    return tuple(found.items())


def _folded(name: str) -> str:
    return " ".join(name.lower().split())
