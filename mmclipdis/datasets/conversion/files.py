"""What converters of data sets share: reading with the file named, label maps and lists."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmclipdis.datasets.loading import BROKEN
from mmclipdis.utils.pictures import TooManyPixelsError, check_pixels, open_picture
from mmclipdis.utils.whole_files import write_picture, write_text

#: All that numpy arrays need to come back from a pickle, under numpy's old and new module names.
_ARRAY_PARTS = frozenset(
    [("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")]
    + [
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (
            ("multiarray", "_reconstruct"),
            ("multiarray", "scalar"),
            ("numeric", "_frombuffer"),
        )
    ]
)


class _ArraysOnly(pickle.Unpickler):
    """Unpickler that calls nothing but what rebuilds numpy arrays."""

    def find_class(self, module: str, name: str) -> Any:
        """Return an admitted name; raise UnpicklingError for any other."""
        if (module, name) not in _ARRAY_PARTS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no plain data")
        return super().find_class(module, name)


def read_plain_pickle(path: Path) -> Any:
    """Content of a pickle of dicts, lists, text, numbers and numpy arrays; runs no other code.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds other things than plain data.
    """
    try:
        with path.open("rb") as file:
            return _ArraysOnly(file).load()
    except OSError:
        raise
    except Exception as error:  # damaged pickles raise nearly anything
        raise ValueError(f"{path} is no pickle of plain data: {error}") from error


def read_picture(path: Path) -> Image.Image:
    """Decode an image wholly.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image, broken, or above the limit of pixels.
    """
    try:
        with open_picture(path) as picture:
            picture.load()
            return picture.copy()
    except (FileNotFoundError, TooManyPixelsError):
        raise
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"cannot read {path} as an image; extract it again") from error


def photo_size(path: Path) -> tuple[int, int]:
    """(height, width) of a photo, from its head.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image, or above the limit of pixels.
    """
    try:
        width, height = check_pixels(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no photo {path}; extract the photos beside the labels") from error
    return height, width


def write_labels(target: Path, labels: np.ndarray) -> None:
    """Write labels (H, W), uint8 or uint16, as PNG or (losslessly compressed) TIFF by the name."""
    options = {} if target.suffix == ".png" else {"compression": "tiff_adobe_deflate"}
    write_picture(target, Image.fromarray(labels), **options)


def lines_differ(
    target: Path,
    lines: Sequence[str],
    remedy: str,
    *,
    ordered: bool = True,
    overwrite: bool = False,
) -> bool:
    """Whether a text file has yet to be written.

    Args:
        target: the file.
        lines: what it is to hold.
        remedy: what to do about other content, for the message.
        ordered: whether another order of the same lines counts as other content.
        overwrite: whether other content may be replaced.

    Raises:
        FileExistsError: the file holds something else, and ``overwrite`` is not set.
    """
    if not target.exists():
        return True
    there = target.read_text(encoding="utf-8").splitlines()
    if there == list(lines) or (not ordered and sorted(there) == sorted(lines)):
        return False
    if not overwrite:
        raise FileExistsError(
            f"{str(target)!r} exists and is left as it is: it holds something else "
            f"({len(there):,} lines, to write {len(lines):,}); {remedy}"
        )
    return True


def write_lines(target: Path, lines: Iterable[str]) -> None:
    """Write a text file, whole or not at all."""
    write_text(target, "".join(f"{line}\n" for line in lines))
