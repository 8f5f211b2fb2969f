"""Prompt templates by name: how a class name becomes the sentences that the text tower reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from open_clip import OPENAI_IMAGENET_TEMPLATES


@dataclass(frozen=True)
class TemplateSet:
    """A named list of sentence patterns; ``{}`` stands for the class name.

    Args:
        name: How configs call it.
        formats: Patterns. Each holds ``{}`` once; with ``vild``, ``{article}`` is allowed too.
        vild: Prepare name and sentence the way ViLD does (see :meth:`render`).

    Raises:
        ValueError: if there is no pattern, or one does not hold ``{}`` exactly once.
    """

    name: str
    formats: tuple[str, ...]
    vild: bool = False

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
        """The prompts of one class name, in the order of :attr:`formats`.

        Ordinary sets put the name in as it is. A ViLD set (DeCLIP's region classification; Gu et
        al., ViLD, appendix) turns ``_`` into a space and ``/`` into " or ", lowers the case, drops
        trailing dots, chooses "a" or "an" by the first letter of the raw name, and puts "This is "
        before a sentence that starts with "a" or "the".
        """
        if not self.vild:
            return tuple(pattern.replace("{}", name) for pattern in self.formats)
        article = "an" if name[:1].lower() in tuple("aeiou") else "a"
        clean = name.replace("_", " ").replace("/", " or ").lower().rstrip(".")
        prompts = (p.replace("{article}", article).replace("{}", clean) for p in self.formats)
        return tuple(f"This is {p}" if p.startswith(("a", "the")) else p for p in prompts)

    def key(self) -> str:
        """Hash of what the set renders; its name does not matter."""
        content = json.dumps([self.formats, self.vild])
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


#: ``imagenet80``: OpenAI's 80 ImageNet prompts (training-free methods). ``vild63``: DeCLIP's region
#: classification. ``catseg``: CAT-Seg's only prompt. ``single``: CLIP's plain prompt.
TEMPLATES: dict[str, TemplateSet] = {
    "imagenet80": TemplateSet("imagenet80", tuple(t("{}") for t in OPENAI_IMAGENET_TEMPLATES)),
    "vild63": TemplateSet("vild63", _vild63(), vild=True),
    "single": TemplateSet("single", ("a photo of a {}.",)),
    "catseg": TemplateSet("catseg", ("A photo of a {} in the scene",)),
}

Templates = TemplateSet | str | Sequence[str]


def get_templates(value: Templates) -> TemplateSet:
    """A template set by name, or from patterns of one's own.

    Args:
        value: A name of :data:`TEMPLATES`, one pattern with ``{}``, or a list of patterns.

    Raises:
        ValueError: for an unknown name (with the allowed ones) or a pattern without ``{}``.
    """
    if isinstance(value, TemplateSet):
        return value
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
