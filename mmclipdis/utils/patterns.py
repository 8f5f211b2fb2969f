"""Files behind a pattern such as ``'trip/**/*.jpg'``, where links may lead in circles."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path


def behind(pattern: str) -> Iterator[str]:
    """What ``glob.glob(pattern, recursive=True)`` finds, without following links in circles.

    With several ``**`` a file may come more than once.
    """
    parts = pattern.replace(os.altsep or os.sep, os.sep).split(os.sep)
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    place = parts.index("**")
    head = os.sep.join(parts[:place]) or (os.sep if place else "")
    rest = os.sep.join(parts[place + 1 :] or ["*"])
    for top in glob.iglob(head) if head else [""]:
        for folder in _folders(top):
            yield from behind(os.path.join(glob.escape(folder), rest))


def _folders(folder: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    """A folder and all in it, but for hidden ones and for links to where the walk came from.

    Args:
        folder: Where to begin; ``""`` is the current one.
        above: Real paths of the folders that the walk came through.
    """
    real = os.path.realpath(folder)
    if any(Path(one).is_relative_to(real) for one in above):
        return
    yield folder
    try:
        with os.scandir(folder or os.curdir) as entries:
            names = [one.name for one in entries if not one.name.startswith(".") and leads_in(one)]
    except OSError:  # as glob: what cannot be read has nothing in it
        return
    for name in names:
        yield from _folders(os.path.join(folder, name), (*above, real))


def leads_in(entry: os.DirEntry[str]) -> bool:
    """Whether what stands in a folder is one itself, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
