"""Names of files that lists and annotations bring: none may lead out of the data set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

#: Keys of a data set's sample under which a file is named.
_PATHS = ("img_path", "seg_map_path", "ann_path")


def check_inside(paths: Iterable[str], folders: Iterable[str | None], source: str) -> None:
    """Refuse paths that lie outside some folders, by ``..`` or as absolute ones.

    Names are compared, not what lies on the disk: a symbolic link inside may point anywhere, since
    whoever put it there could have put the file there as well.

    Args:
        paths: Joined with their folder already.
        folders: One of which must hold each path; empty ones do not count, and without any other
            nothing is compared.
        source: The list that names the paths, for the message.

    Raises:
        ValueError: naming the list and the first such path.
    """
    given = [folder for folder in folders if folder]
    starts = tuple(os.path.join(os.path.abspath(folder), "") for folder in given)
    plain = tuple(os.path.join(folder, "") for folder in given)
    for path in paths:
        if not given or (path.startswith(plain) and ".." not in path):
            continue
        if not os.path.abspath(path).startswith(starts):
            raise ValueError(
                f"{source} names {path!r}, which lies outside {given[0]!r}; correct the name, or "
                "set data_root to a folder that holds all files of the list"
            )


def check_samples(dataset: Any, samples: Iterable[Mapping[str, Any]]) -> None:
    """Refuse a data set whose list leads out of its ``data_root`` and ``data_prefix``.

    Args:
        dataset: Of mmengine's kind.
        samples: Its data list.

    Raises:
        ValueError: as :func:`check_inside`.
    """
    check_inside(
        (s[key] for s in samples for key in _PATHS if isinstance(s.get(key), str)),
        [dataset.data_root, *dataset.data_prefix.values()],
        f"{type(dataset).__name__}: {dataset.ann_file!r}",
    )
