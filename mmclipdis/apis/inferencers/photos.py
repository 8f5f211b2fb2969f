"""Where photos come from: files, folders, patterns, addresses, arrays, videos, and lists of these.

Everything is read one photo at a time, so that memory does not grow with their number.
"""

from __future__ import annotations

import glob
import http.client
import itertools
import os
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps

from mmclipdis.datasets.loading import LoadReadableImage
from mmclipdis.utils.patterns import behind, leads_in
from mmclipdis.utils.pictures import check_size, open_picture, to_rgb

#: A file, folder, pattern or address, or an RGB picture uint8 (H, W, 3), or a Pillow image.
Photo = str | Path | np.ndarray | Image.Image
#: One of them, or a list or generator of them.
Sources = Photo | Iterable[Photo]

#: Endings of photos that a folder or a pattern is searched for.
PHOTO_ENDINGS = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp", ".jp2")
)
VIDEO_ENDINGS = frozenset(
    (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv")
)
_WEB = ("http://", "https://")
#: Bytes of a photo that is fetched, and seconds that an answer may take.
MOST_BYTES, TIMEOUT = 200_000_000, 30


@dataclass(frozen=True)
class Loaded:
    """A photo, RGB uint8 (H, W, 3), its file if it has one, and its number in a video."""

    photo: np.ndarray
    path: Path | None = None
    frame: int | None = None


@dataclass(frozen=True)
class Failure:
    """A photo that could not be used: what it is called, and why, in one line."""

    path: str
    message: str


@dataclass(frozen=True)
class Source:
    """A photo that is not read yet."""

    name: str
    load: Callable[[], Loaded]


def is_single(sources: Any) -> bool:
    """Whether ``sources`` is one photo for sure: an array, a picture, a file, an address."""
    if isinstance(sources, (str, Path)):
        return not (_is_folder(sources) or _is_video(sources) or _is_pattern(sources))
    return isinstance(sources, (np.ndarray, Image.Image))


def photos_of(sources: Any) -> Iterator[Source]:
    """The photos of ``sources`` in order; nothing is read before a photo is asked for.

    Files of a folder and of a pattern (``'trip/**/*.jpg'``) come in the order of their names; a
    folder in a folder is not looked into. ``**`` follows no link back to a folder that it came
    through. A video gives its frames.

    Raises:
        FileNotFoundError: no such folder, or nothing in it or behind a pattern is a photo.
        ValueError: what is no photo.
    """
    if isinstance(sources, (str, Path)):
        return _of_text(sources)
    if isinstance(sources, (np.ndarray, Image.Image)):
        return iter([_of_picture(sources, 0)])
    if isinstance(sources, (bytes, bytearray, dict, torch.Tensor)) or not isinstance(
        sources, Iterable
    ):
        raise ValueError(
            f"photos={_short(sources)}: give files, RGB arrays or Pillow images, a folder, a "
            "pattern such as 'photos/*.jpg', an address or a video"
        )
    return _of_many(sources)


def count_of(sources: Any) -> int | None:
    """How many photos there are, if that can be told without reading any."""
    if is_single(sources):
        return 1
    if isinstance(sources, (str, Path)):
        files = [str(sources)] if _is_video(sources) else _files_of(sources)
        return None if any(map(_is_video, files)) else len(files)
    if isinstance(sources, (list, tuple)) and all(map(is_single, sources)):
        return len(sources)
    return None


def _of_many(sources: Iterable[Any]) -> Iterator[Source]:
    for number, one in enumerate(sources):
        if isinstance(one, (str, Path)):
            try:
                found = _of_text(one)
            except OSError as error:
                found = iter([_broken(str(one), error)])
            yield from found
        elif isinstance(one, (np.ndarray, Image.Image)):
            yield _of_picture(one, number)
        elif isinstance(one, Source):  # of photos_of, some of them left out
            yield one
        else:
            wrong = f"photo {number} is {_short(one)}: give files, RGB arrays or Pillow images"
            yield _broken(f"photo {number}", ValueError(wrong))


def _of_picture(picture: np.ndarray | Image.Image, number: int) -> Source:
    # a copy: whoever gives an array may draw on it, or put the next frame into it
    return Source(f"photo {number}", lambda: Loaded(read_photo(picture).copy()))


def _of_text(text: str | Path) -> Iterator[Source]:
    if str(text).startswith(_WEB):
        return iter([Source(str(text), partial(_fetch, str(text)))])
    if _is_folder(text) or _is_pattern(text):
        return itertools.chain.from_iterable(map(_of_file, _files_of(text)))
    return _of_file(text)


def _of_file(path: str | Path) -> Iterator[Source]:
    if _is_video(path):
        return _frames(path)
    return iter([Source(str(path), lambda: Loaded(read_photo(path), Path(path)))])


def files_of(text: str) -> list[str]:
    """Photos and videos of a folder or behind a pattern; any other text alone.

    Raises:
        FileNotFoundError: there is none in the folder or behind the pattern.
    """
    return _files_of(text) if _is_folder(text) or _is_pattern(text) else [text]


def _files_of(text: str | Path) -> list[str]:
    """Photos and videos of a folder or behind a pattern, sorted.

    Raises:
        FileNotFoundError: there is none.
    """
    if not _is_folder(text):
        found = set(behind(os.path.expanduser(str(text))))
        files = sorted(path for path in found if _is_media(path) and os.path.isfile(path))
        if not files:
            raise FileNotFoundError(
                f"nothing behind the pattern {str(text)!r} is a photo or a video ({_endings()})"
            )
        return files
    with os.scandir(text) as entries:
        names = [(entry.name, leads_in(entry)) for entry in entries]
    files = sorted(
        os.path.join(text, name) for name, is_folder in names if not is_folder and _is_media(name)
    )
    if not files:
        folders = sum(is_folder for _, is_folder in names)
        inside = f"; its {folders} folders are not looked into: give '{text}/**'" if folders else ""
        raise FileNotFoundError(f"folder {str(text)!r} holds no photos ({_endings()}){inside}")
    return files


def _is_folder(text: str | Path) -> bool:
    return os.path.isdir(text)


def _is_pattern(text: str | Path) -> bool:
    """Whether a text has marks of a pattern and is no file of that name."""
    marks = isinstance(text, str) and glob.has_magic(text) and not text.startswith(_WEB)
    return marks and not os.path.exists(text)


def _is_video(text: str | Path) -> bool:
    return Path(text).suffix.lower() in VIDEO_ENDINGS and not str(text).startswith(_WEB)


def _is_media(name: str) -> bool:
    hidden = os.path.basename(name).startswith(".")  # macOS' ._PHOTO.jpg, for one
    return not hidden and Path(name).suffix.lower() in PHOTO_ENDINGS | VIDEO_ENDINGS


def _endings() -> str:
    return "*.jpg, *.png, *.tif, *.webp, *.mp4 and the like"


def _frames(path: str | Path) -> Iterator[Source]:
    """The frames of a video; each is decoded when its turn comes, whether it is used or not.

    A file that is missing or no video is one broken photo.
    """
    if not os.path.isfile(path):
        yield _broken(str(path), FileNotFoundError(f"no video at {path}"))
        return
    video = cv2.VideoCapture(str(path))
    try:
        for number in itertools.count():
            found, frame = video.read() if video.isOpened() else (False, None)
            if not found or frame is None:
                if number == 0:
                    wrong = (
                        f"cannot read {path} as a video; replace or remove it, or convert it to "
                        "an .mp4 that OpenCV can decode"
                    )
                    yield _broken(str(path), ValueError(wrong))
                return
            try:
                check_size((frame.shape[1], frame.shape[0]), path)
            except ValueError as error:
                yield _broken(str(path), error)
                return
            loaded = Loaded(np.ascontiguousarray(frame[..., ::-1]), Path(path), number)
            yield Source(f"{path}, frame {number}", partial(_same, loaded))
    finally:
        video.release()


def _same(loaded: Loaded) -> Loaded:
    return loaded


def _broken(name: str, error: Exception) -> Source:
    """What is found to be no photo while others are looked for; it says so when its turn comes."""

    def load() -> Loaded:
        raise error

    return Source(name, load)


def _fetch(address: str) -> Loaded:
    """The photo behind an address.

    Raises:
        ValueError: there is no answer, it is too large, or no picture.
    """
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
            content = answer.read(MOST_BYTES + 1)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = " ".join(str(getattr(error, "reason", None) or error).split())
        raise ValueError(
            f"cannot fetch {address}: {reason}; check the address and the network, or download "
            "the photo and give the file"
        ) from error
    if len(content) > MOST_BYTES:
        raise ValueError(f"{address} is more than {MOST_BYTES:,} bytes; give a smaller photo")
    with open_picture(content, name=address) as picture:
        try:
            return Loaded(read_photo(picture), Path(address.split("?")[0].rsplit("/", 1)[-1]))
        except (OSError, SyntaxError) as error:
            raise ValueError(f"cannot read {address} as an image") from error


def read_photo(photo: Photo) -> np.ndarray:
    """RGB uint8 (H, W, 3) of a file or Pillow image (turned as its EXIF tag says), or array.

    Raises:
        FileNotFoundError, ValueError: no such file, no image, no pixels or too many.
    """
    if isinstance(photo, (str, Path)):
        loaded: dict[str, Any] = {"img_path": str(photo)}
        LoadReadableImage().transform(loaded)
        return np.ascontiguousarray(loaded["img"][..., ::-1])
    if isinstance(photo, Image.Image):  # Pillow decodes when it converts
        check_size(photo.size, "the photo")
        photo = to_rgb(ImageOps.exif_transpose(photo))  # as files are
    picture = np.asarray(photo)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(
            f"a photo must be RGB uint8 (H, W, 3), got {picture.dtype} {picture.shape}"
        )
    if 0 in picture.shape:
        raise ValueError(f"a photo without pixels: {picture.shape}")
    return picture


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
