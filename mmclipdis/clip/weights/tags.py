"""Names of weights and of archs: what ships with the package, and what a mistyped name may mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

import open_clip
from open_clip import pretrained

MODEL_CONFIGS = Path(__file__).parents[1] / "model_configs"
open_clip.add_model_config(MODEL_CONFIGS)

#: Weights inside the package: (arch, tag) -> file.
PACKAGED = {
    (arch, "shapes"): MODEL_CONFIGS / f"{arch}.safetensors"
    for arch in ("shapes-tiny", "shapes-vfm")
}


def tags_of(arch: str) -> list[str]:
    """Tags of the weights of ``arch``: those that ship with the package, then open_clip's."""
    packaged = [tag for name, tag in PACKAGED if name == arch]
    return packaged + list(pretrained.list_pretrained_tags_by_model(arch))


def archs_of(tag: str) -> list[str]:
    """Archs for which there are weights called ``tag``."""
    packaged = [arch for arch, name in PACKAGED if name == tag]
    return packaged + list(pretrained.list_pretrained_models_by_tag(tag))


def unknown_arch(arch: str) -> str:
    """What to say of an arch that open_clip does not know: close names, ours among all others.

    Args:
        arch: The name.
    """
    names = open_clip.list_models()
    text = f"unknown CLIP arch {arch!r}"
    if archs := archs_of(arch):
        return f"{text}: it is a tag of weights; give it as checkpoint, and arch={archs[0]!r}"
    ours = sorted({name for name, _ in PACKAGED} & set(names))
    close = _few(_close(arch, names) or ours)
    return f"{text}; close names: {close} (all: open_clip.list_models())"


def unknown_source(arch: str | None, source: str, what: str) -> str:
    """What to say of weights that are neither a file nor a tag of ``arch``.

    Args:
        arch: Name of the arch; None: a dict, for which no tag can stand.
        source: What was given as checkpoint.
        what: The arch as the message names it.
    """
    text = f"{source!r} is neither a file nor weights known for {what}"
    if "://" in source:
        return f"{text}; fetch that file and give its path"
    if arch is None:
        return f"{text}: tags are for archs with a name; give a file"
    tags = tags_of(arch)
    if source in open_clip.list_models() or any(source == name for name, _ in PACKAGED):
        text += "; it is the name of an arch"
    elif archs := archs_of(source):
        text += f"; it is a tag of {_few(archs, 3)}"
    if not tags:
        return f"{text}; there are no tags for it: give a file"
    close = _close(source, tags)
    hint = f"; did you mean {' or '.join(map(repr, close[:2]))}?" if close else ""
    return f"{text}; known tags: {_few(tags, 12)}{hint}"


def _close(name: str, names: Iterable[str]) -> list[str]:
    """Names that look like ``name``, whatever their case and punctuation."""
    plain = {_plain(one): one for one in names}
    found = difflib.get_close_matches(_plain(name), list(plain), n=5, cutoff=0.5)
    return [plain[one] for one in found]


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _few(names: list[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
