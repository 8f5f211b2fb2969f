"""Masks that lie in files, one a photo, made by whatever and whenever."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from mmseg.registry import MODELS
from numpy.lib import format as npy

from mmclipdis.utils.pictures import check_size, open_picture

ENDINGS = (".npz", ".npy", ".png")
#: What a message says to who has no files.
OF_PHOTO = (
    "give the model masks that are made of the photo: masks=dict(type='MeanShiftMasks'), or a "
    "function"
)
#: What reading a broken array raises.
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError),
    *(NotImplementedError, RuntimeError, MemoryError),
)


@MODELS.register_module()
class MaskFolder:
    """A file a photo, found by the photo's name: ``trip/a.jpg`` has ``root/a.npz``.

    Where photos of several folders have the same names: ``root/trip/a.npz``, which goes first.

    ``.npz`` (the array ``key`` of it), ``.npy``, or ``.png`` of 8 or 16 bits whose values, of a
    palette its indices, are the numbers. The smallest number of a file means "in no mask". A file
    of another size than the photo's, and the same aspect, is resized to the nearest.

    Args:
        root: The folder.
        key: Name of the array in ``.npz`` files; the default is that of CorrCLIP's files.
        suffix: What follows the photo's name without ending, ``'_masks.png'`` for ``a_masks.png``;
            None looks for ``.npz``, ``.npy`` and ``.png``.

    Raises:
        ValueError: an argument is no text, or ``suffix`` has another ending.
    """

    def __init__(
        self, root: str | Path, key: str = "instance_mask", suffix: str | None = None
    ) -> None:
        if not isinstance(root, (str, Path)) or not str(root):
            raise ValueError(f"MaskFolder.root={root!r}: give the folder of the mask files")
        if not isinstance(key, str) or not key:
            raise ValueError(f"MaskFolder.key={key!r}: give the name of an array in .npz files")
        if suffix is not None and not (isinstance(suffix, str) and suffix.endswith(ENDINGS)):
            raise ValueError(
                f"MaskFolder.suffix={suffix!r} must end with one of {', '.join(ENDINGS)}, such as "
                "'_masks.png'"
            )
        self.root, self.key, self.suffix = Path(root).expanduser(), key, suffix

    def load(self, img_path: Any) -> tuple[str, np.ndarray]:
        """What the file of a photo is called in messages, and its array, not yet checked.

        Raises:
            FileNotFoundError: there is no such folder or file.
            ValueError: the photo has no file, several files are its own, or one cannot be read.
        """
        path = self.file_of(img_path)
        name = f"mask file {path}"
        if path.suffix == ".png":
            return name, _read_png(path, name)
        if path.suffix == ".npy":
            return name, _read_array(lambda: path.open("rb"), name)
        with _opened_zip(path, name) as archive:
            names = [entry.removesuffix(".npy") for entry in archive.namelist()]
            if self.key not in names:
                found = ", ".join(names[:5]) or "nothing"
                raise ValueError(
                    f"{name} has no array {self.key!r}, but {found[:100]}: say which one it is, "
                    "MaskFolder.key"
                )
            return name, _read_array(lambda: archive.open(f"{self.key}.npy"), name)

    def file_of(self, img_path: Any) -> Path:
        """The mask file of a photo; see :meth:`load`."""
        text = str(img_path or "").replace("\\", "/")
        stem, ending = PurePosixPath(text).stem, PurePosixPath(text).suffix
        # not "photo 0" nor "a.mp4, frame 3", as inferencers call what has no file
        if not stem or not (ending[1:].isalnum() or os.path.isfile(text)):
            raise ValueError(
                f"{text or 'a photo'}: its masks are looked for in {self.root} by the name of its "
                f"file, and it has none; give files, or {OF_PHOTO}"
            )
        endings = ENDINGS if self.suffix is None else (self.suffix,)
        beside = self.root / PurePosixPath(text).parent.name
        for home in dict.fromkeys((beside, self.root)):
            files = [home / f"{stem}{ending}" for ending in endings]
            found = [file for file in files if os.path.isfile(file)]
            if found:
                break
        if len(found) > 1:
            raise ValueError(
                f"masks of {text}: both {found[0]} and {found[1].name} are there; say which ones "
                "are meant, MaskFolder.suffix"
            )
        if found:
            return found[0]
        if not os.path.isdir(self.root):
            raise FileNotFoundError(
                f"no folder {str(self.root)!r} of masks: correct MaskFolder.root, or {OF_PHOTO}"
            )
        looked = f"{stem}{{{','.join(ENDINGS)}}}" if self.suffix is None else files[0].name
        raise FileNotFoundError(
            f"no masks of {text}: no file {self.root / looked}; make it as the others were made, "
            f"or {OF_PHOTO}"
        )


def _opened_zip(path: Path, name: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except _BROKEN as error:
        raise ValueError(_unreadable(name, error)) from error


def _read_array(opened: Callable[[], IO[bytes]], name: str) -> np.ndarray:
    """The array of an ``.npy`` stream, when its head promises integers and not too many.

    ``numpy.load`` makes room for what the head says before it has read any of it.
    """
    try:
        with opened() as stream:
            version = npy.read_magic(stream)
            head = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
            shape, _, kind = head[version](stream)
    except KeyError:  # a version that only arrays of records have
        raise ValueError(f"{name} holds no integers; save an array of integers (H, W)") from None
    except _BROKEN as error:
        raise ValueError(_unreadable(name, error)) from error
    if kind.hasobject:
        raise ValueError(
            f"{name} holds Python objects, which can run code when they are read, and is not read; "
            "save an array of integers (H, W)"
        )
    if kind.kind not in "iub" or len(shape) != 2 or min(shape) < 1:
        raise ValueError(
            f"{name} holds {str(kind)[:40]} {str(shape)[:60]}; save an array of integers (H, W), "
            "the number of the mask of each pixel"
        )
    check_size((shape[1], shape[0]), name)
    try:
        with opened() as stream:
            return np.asarray(npy.read_array(stream, allow_pickle=False))
    except _BROKEN as error:
        raise ValueError(_unreadable(name, error)) from error


def _read_png(path: Path, name: str) -> np.ndarray:
    with open_picture(path, name=name) as picture:
        if picture.format != "PNG":
            raise ValueError(f"{name} is a {picture.format}, which changes numbers; save a PNG")
        if len(picture.getbands()) != 1:
            raise ValueError(
                f"{name} has {len(picture.getbands())} channels; the numbers of masks are one: "
                "save a PNG of 8 or 16 bits a pixel, or an .npz"
            )
        try:
            return np.asarray(picture)
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(_unreadable(name, error)) from error


def _unreadable(name: str, error: BaseException) -> str:
    reason = " ".join(str(error).split())[:100] or type(error).__name__
    return f"cannot read {name} ({reason}); make it again"
