"""Lists of class names, checked before anything is counted by them.

``classes=('thing')`` is no tuple but the text "thing", and a text is a sequence, too: of the
letters t, h, i, n, g. Whatever takes names asks here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

#: Keys of a data set's ``metainfo`` that hold names, besides all that end with ``_classes``.
_LISTS = ("classes",)


def name_list(value: Any, where: str, *, twice: bool = False) -> tuple[str, ...]:
    """``value`` as a tuple, if it is a list of names.

    Args:
        value: A list or tuple of texts.
        where: What the list is called, for the message.
        twice: Accept equal names.

    Raises:
        ValueError: It is one text, something without order, or holds what is no name or, unless
            ``twice``, one name twice.
    """
    if isinstance(value, (str, bytes)):
        raise ValueError(
            f"{where} is the text {value!r}, whose letters would count as the names; give a list, "
            f"with a comma for one name as well: ({value!r},)"
        )
    if isinstance(value, (Mapping, set, frozenset)) or not isinstance(value, Iterable):
        kind = "dict" if isinstance(value, Mapping) else type(value).__name__  # ConfigDict
        raise ValueError(
            f"{where} is a {kind}, {_short(value)}; give a list of names, whose places are the "
            "labels"
        )
    names = tuple(value)
    for place, name in enumerate(names):
        if not isinstance(name, str):
            raise ValueError(
                f"{where}[{place}] is {_short(name)}, a {type(name).__name__}; a name is a text"
            )
        if not name.strip():
            raise ValueError(f"{where}[{place}] is empty; every class needs a name")
    if not twice and len(set(names)) < len(names):
        double = sorted({name for name in names if names.count(name) > 1})
        places = [place for place, name in enumerate(names) if name == double[0]]
        raise ValueError(
            f"{where} has {double[0]!r} more than once (places {', '.join(map(str, places))}"
            f"{f'; {len(double) - 1} other names, too' if len(double) > 1 else ''}): labels of "
            "one could not be told from the other's; remove or rename it"
        )
    return names


def group_lists(groups: Any, where: str) -> dict[str, tuple[str, ...]]:
    """Names of classes by group, if ``groups`` is such a mapping.

    Raises:
        ValueError: It is none, or a group is no list of names.
    """
    if not isinstance(groups, Mapping):
        raise ValueError(
            f"{where} is a {type(groups).__name__}, {_short(groups)}; give a dict of lists of "
            "names: dict(base=('cat', ...), novel=('dog', ...))"
        )
    return {key: name_list(names, f"{where}[{key!r}]") for key, names in groups.items()}


def check_metainfo(metainfo: Mapping[str, Any], owner: str, *, twice: bool = False) -> None:
    """Check all that a data set's ``metainfo`` says of its classes.

    That is ``classes``, what ends with ``_classes``, ``groups``, and the length of ``palette``.

    Args:
        metainfo: Of the data set, or of its config.
        owner: Name of the data set, for the message.
        twice: Accept equal names among the classes.

    Raises:
        ValueError: Names are no list (:func:`name_list`), a class of a group is none of the
            classes, or there are fewer colours than classes.
    """
    for key, value in metainfo.items():
        where = f"metainfo[{key!r}] of {owner}"
        if value is None:
            continue
        if key in _LISTS or key.endswith("_classes"):
            if not isinstance(value, (Sequence, Mapping, Set)):
                # a generator is used up by a look, an array is neither true nor false elsewhere
                raise ValueError(f"{where} is a {type(value).__name__}; give a list of names")
            name_list(value, where, twice=twice)
        elif key == "groups":
            group_lists(value, where)
    classes, palette = metainfo.get("classes"), metainfo.get("palette")
    if classes and isinstance(palette, (list, tuple)) and 0 < len(palette) < len(classes):
        raise ValueError(
            f"metainfo['palette'] of {owner} has {len(palette)} colours for {len(classes)} "
            "classes; give one a class, or leave it out"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
