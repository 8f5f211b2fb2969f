"""Pictures from anyone: their size from the head of the file, and a limit before decoding.

A few kilobytes of PNG decode to gigabytes. OpenCV allows 2^30 pixels; Pillow warns above 89 million
and raises an error of its own kind above twice that. Here is one limit for every loader:
:data:`LIMIT_VARIABLE` of the environment, 100 million pixels without it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

#: Environment variable with the most pixels that a picture may have.
LIMIT_VARIABLE = "MMCLIPDIS_MAX_PIXELS"
DEFAULT_LIMIT = 100_000_000
#: What photos and label maps are. Pillow opens more, and runs Ghostscript to decode one of them.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000")

#: Markers of a JPEG's frame, which has its size.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

_lock = threading.Lock()


class TooManyPixelsError(ValueError):
    """A picture has more pixels than the limit; it was not decoded."""


def pixel_limit() -> int:
    """Most pixels a picture may have: ``$MMCLIPDIS_MAX_PIXELS``, or else 100 million.

    Raises:
        ValueError: the variable is no positive number.
    """
    text = os.environ.get(LIMIT_VARIABLE, "")
    if not text:
        return DEFAULT_LIMIT
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not 1 <= limit < float("inf"):
        raise ValueError(f"{LIMIT_VARIABLE}={text!r} must be a number of pixels, such as 2e8")
    return int(limit)


@contextlib.contextmanager
def open_picture(
    source: str | Path | bytes, limit: float | None = None, name: str | Path | None = None
) -> Iterator[Image.Image]:
    """A picture opened by Pillow, nothing of it decoded yet, that is within the limit.

    Args:
        source: The file, or its content.
        limit: Most pixels; None is :func:`pixel_limit`.
        name: What the picture is called in messages; None is ``source``.

    Raises:
        FileNotFoundError, OSError: The system does not give the file.
        TooManyPixelsError: It has more pixels than the limit; names it and both numbers.
        ValueError: It is no picture of :data:`FORMATS`, or its head is broken.
    """
    name = name or ("a picture" if isinstance(source, bytes) else source)
    with _open(source, name) as picture:
        check_size(picture.size, name, limit)
        yield picture


def to_rgb(picture: Image.Image, name: str | Path = "the photo") -> Image.Image:
    """An opened picture as RGB of 8 bits, as OpenCV makes it of the file.

    Of 16 bits the upper 8 count; Pillow alone makes everything above 255 white.

    Raises:
        ValueError: It holds floats or 32 bits, whose range nobody knows.
    """
    if picture.mode[0] not in "IF":
        return picture.convert("RGB")
    values = np.asarray(picture)
    if picture.mode == "F" or values.min() < 0 or values.max() >= 2**16:
        raise ValueError(
            f"cannot read {name} as an image: it holds {values.dtype} numbers, whose range is not "
            "known; replace it by one of 8 or 16 bits"
        )
    return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")


def check_size(size: tuple[int, int], name: str | Path, limit: float | None = None) -> None:
    """Refuse a picture of (width, height) above the limit; see :func:`open_picture`."""
    width, height = size
    most = pixel_limit() if limit is None else int(limit)
    if width * height > most:
        raise TooManyPixelsError(
            f"{name} has {width} x {height} = {width * height:,} pixels, more than the limit of "
            f"{most:,}, and is not decoded; make it smaller, or raise the limit by "
            f"{LIMIT_VARIABLE}={width * height}"
        )
    with _lock:  # Pillow's own, lower one would refuse to decode what is allowed here
        if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
            Image.MAX_IMAGE_PIXELS = most


def picture_size(source: str | Path | bytes, name: str | Path | None = None) -> tuple[int, int]:
    """(width, height) in pixels as stored, before any EXIF turn; reads the head of the file only.

    Args:
        source: The file, or its content. A picture of any size is answered.
        name: As of :func:`open_picture`.

    Raises:
        FileNotFoundError, OSError, ValueError: as :func:`open_picture`.
    """
    name = name or ("a picture" if isinstance(source, bytes) else source)
    with _open(source, name) as picture:
        return picture.size


def check_pixels(
    source: str | Path | bytes, limit: float | None = None, name: str | Path | None = None
) -> tuple[int, int]:
    """(width, height) as stored of a picture within the limit; see :func:`open_picture`.

    For whoever decodes it next: of the content of a JPEG or PNG only the size is looked at, which
    takes microseconds where Pillow takes half a millisecond.
    """
    size = quick_size(source) if isinstance(source, bytes) else None
    if size is None:
        with open_picture(source, limit, name) as picture:
            return picture.size
    check_size(size, name or "a picture", limit)
    return size


def quick_size(content: bytes) -> tuple[int, int] | None:
    """(width, height) in the head of a JPEG or PNG; None for anything else, or odd heads."""
    if content[:8] == b"\x89PNG\r\n\x1a\n" and content[12:16] == b"IHDR" and len(content) >= 24:
        width, height = struct.unpack(">II", content[16:24])
        return (width, height) if width and height else None
    if content[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker in _FRAMES:
            height, width = struct.unpack(">HH", content[at + 5 : at + 9])
            return (width, height) if width and height else None
        if not (0xC0 <= marker <= 0xFE) or 0xD0 <= marker <= 0xDA:  # no segment, or pixels begin
            return None
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return None


def _open(source: str | Path | bytes, name: str | Path) -> Image.Image:
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with _without_own_limit():
            return Image.open(file, formats=_formats())
    except MemoryError:
        raise
    except Exception as error:  # broken heads raise nearly anything
        if isinstance(error, OSError) and error.errno is not None:
            raise  # Pillow's own errors have no errno
        raise ValueError(f"cannot read {name} as an image; replace or remove it") from error


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(kind for kind in FORMATS if kind in Image.OPEN)


@contextlib.contextmanager
def _without_own_limit() -> Iterator[None]:
    """Pillow opens, without a warning, what it would refuse without saying width and height."""
    with _lock:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before
