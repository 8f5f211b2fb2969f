"""The 847 classes of ADE20K (A-847): read, checked against the index of the release, tabulated."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmclipdis.datasets.conversion.files import read_plain_pickle

NUM_CLASSES = 847
IGNORED = 65535
#: Name of the list in MaskFormer's register_ade20k_full.py.
LIST_NAME = "ADE20K_SEM_SEG_FULL_CATEGORIES"
#: Share of the names that must agree with the index; the others may be other spellings.
AGREEMENT = 0.9


def read_classes(path: Path) -> list[tuple[str, int]]:
    """(name, id) of each class, in the order of the labels.

    Args:
        path: JSON list of objects with name, id and trainId, or the Python file of MaskFormer, of
            which the one list is read and nothing is run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is neither, or not a list of 847 classes with labels 0..846 and unique ids.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no list of classes {path}; leave --classes out for the usual one")
    try:
        text = path.read_text(encoding="utf-8")
        entries = _list_in_code(text) if path.suffix == ".py" else json.loads(text)
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"{path}: {error}; give a JSON list, or a .py with {LIST_NAME}") from error
    keys = {"name": str, "id": int, "trainId": int}
    if not isinstance(entries, list) or not all(
        isinstance(entry, Mapping) and all(type(entry.get(k)) is t for k, t in keys.items())
        for entry in entries
    ):
        raise ValueError(f"{path}: each class needs a name (text), an id and a trainId (integers)")
    ordered = sorted(entries, key=lambda entry: entry["trainId"])
    if [entry["trainId"] for entry in ordered] != list(range(NUM_CLASSES)):
        raise ValueError(
            f"{path} has {len(entries)} classes; A-847 has {NUM_CLASSES}, with each trainId from 0 "
            f"to {NUM_CLASSES - 1} once"
        )
    ids = [entry["id"] for entry in ordered]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice or min(ids) < 0 or max(ids) >= IGNORED:
        raise ValueError(f"{path}: ids must be unique and in 0..{IGNORED - 1}; wrong: {twice[:5]}")
    names = [" ".join(entry["name"].split()) for entry in ordered]
    if not all(names):
        raise ValueError(f"{path}: class {names.index('')} has an empty name")
    return list(zip(names, ids, strict=True))


def _list_in_code(text: str) -> Any:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assign) and any(
            isinstance(name, ast.Name) and name.id == LIST_NAME for name in node.targets
        ):
            return ast.literal_eval(node.value)
    raise ValueError(f"it assigns no {LIST_NAME}")


def read_object_names(path: Path) -> list[str] | None:
    """Names of all objects, that of id 1 first; None if there is no index.

    Raises:
        ValueError: the index is damaged, holds code, or no names.
    """
    if not path.is_file():
        return None
    try:
        index = read_plain_pickle(path)
    except ValueError as error:
        raise ValueError(f"{error}; pass --no-index to go without") from error
    names = index.get("objectnames") if isinstance(index, Mapping) else None
    if isinstance(names, np.ndarray):
        names = names.ravel().tolist()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} has no list 'objectnames' of text; pass --no-index to go without")
    return names


def first_id(classes: Sequence[tuple[str, int]], objects: Sequence[str]) -> tuple[int, list[str]]:
    """The id that the list gives to the first object of the index: 1 as in the pixels, or 0.

    Returns:
        that, and what differs ("id: name in the list / in the index").

    Raises:
        ValueError: too few names agree either way.
    """
    differ: dict[int, list[str]] = {}
    for base in (1, 0):
        there = {i: " ".join(name.split()) for i, name in enumerate(objects, start=base)}
        differ[base] = [
            f"{i}: {name!r} / {there.get(i)!r}"
            for name, i in classes
            if there.get(i, "").lower() != name.lower()
        ]
    best = min(differ, key=lambda base: len(differ[base]))
    if len(differ[best]) > (1 - AGREEMENT) * len(classes):
        raise ValueError(
            f"the list of classes and the index agree on {len(classes) - len(differ[best])} of "
            f"{len(classes)} names (differing: {'; '.join(differ[best][:3])}); one of the two is "
            "of another release"
        )
    return best, differ[best]


def check_names(classes: Sequence[tuple[str, int]], index: Path | None) -> tuple[int, int]:
    """Compare the list with the index of the release, and print what differs.

    Args:
        classes: (name, id) of each label.
        index: the pickle; None, or a file that is not there, is only noted.

    Returns:
        the id of the first object in the list (see :func:`first_id`), and the highest id in pixels.

    Raises:
        ValueError: the index is damaged, or most names differ.
    """
    objects = read_object_names(index) if index else None
    if objects is None:
        print("note: no index, so names and ids are not checked", file=sys.stderr)
        return 1, 2**16
    base, differ = first_id(classes, objects)
    if differ:
        print(
            f"warning: {len(differ)} of {len(classes)} names differ from those of the index: "
            f"{'; '.join(differ[:5])}",
            file=sys.stderr,
        )
    return base, len(objects)


def label_table(classes: Sequence[tuple[str, int]], base: int) -> np.ndarray:
    """Label of each id in the pixels, uint16 (65536,), where there is none 65535.

    Args:
        classes: (name, id) of each label.
        base: the id in the list of the first object, whose id in the pixels is 1.

    Raises:
        ValueError: a class has the id of pixels without object.
    """
    table = np.full(2**16, IGNORED, dtype=np.uint16)
    if base == 1 and any(i == 0 for _, i in classes):
        raise ValueError("id 0 means 'no object' in the label maps and can be no class")
    for label, (_, i) in enumerate(classes):
        table[i + 1 - base] = label
    return table
