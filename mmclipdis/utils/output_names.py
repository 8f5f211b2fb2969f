"""Names of output files, one a photo: equal file names in several folders stay apart."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from itertools import takewhile
from pathlib import PurePath


def output_names(photos: Iterable[str], suffix: str = ".png") -> dict[str, str]:
    """Relative path of the output of each photo, in the folders below the root that all share.

    A photo ``ROOT/x/a.jpg`` becomes ``x/a.png``, and ``x/a.jpg.png`` where a photo ``x/a.png``
    would become the same. Capital letters make no difference, as on some disks. Relative photos are
    taken from the current folder, so that no name leads out of the folder of the outputs.

    Raises:
        ValueError: two photos cannot be told apart by their paths.
    """
    paths = list(dict.fromkeys(photos))
    if not paths:
        return {}
    parts = {path: PurePath(os.path.abspath(path)).parts for path in paths}
    folders = [part[:-1] for part in parts.values()]
    levels = zip(*folders, strict=False)
    shared = len(list(takewhile(lambda level: len(set(level)) == 1, levels)))
    below = {path: PurePath(*part[shared:]) for path, part in parts.items()}
    names = {path: str(relative.with_suffix(suffix)) for path, relative in below.items()}
    count = Counter(name.lower() for name in names.values())
    for path, name in names.items():
        if count[name.lower()] > 1:
            names[path] = str(below[path]) + suffix
    seen: dict[str, str] = {}
    for path, name in names.items():
        other = seen.setdefault(name.lower(), path)
        if other != path:
            raise ValueError(
                f"the outputs of {other!r} and {path!r} would both be {name!r}; rename one photo"
            )
    return names


class NamesSoFar:
    """Names given out one by one, where the other photos are not known: ``a.png`` for ``x/a.jpg``.

    Args:
        folder: Of the outputs, for the message.
        suffix: Of their names.
    """

    def __init__(self, folder: object, suffix: str = ".png") -> None:
        self.folder, self.suffix = folder, suffix
        self.known: dict[str, str] = {}  # photo -> name, where they are known ahead
        self._photos: dict[str, str] = {}

    @property
    def written(self) -> set[str]:
        """Names that were given out."""
        return set(self._photos)

    def of(self, photo: str) -> str:
        """Name of the output of a photo.

        Raises:
            ValueError: it was given to another photo: before anything is overwritten.
        """
        name = self.known.get(photo) or PurePath(photo).with_suffix(self.suffix).name
        other = self._photos.setdefault(name, photo)
        if other != photo:
            raise ValueError(
                f"{str(self.folder)!r} holds {name!r} of {other!r}, which that of {photo!r} would "
                "overwrite; give photos other names, or test with tools/test.py, which keeps their "
                "folders"
            )
        return name
