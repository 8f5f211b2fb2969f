"""Reading checkpoint files without running code from them."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmclipdis.clip.weights.torchscript import (
    check_unpacked,
    is_torchscript,
    read_torchscript,
)

#: Most that an ``.npz`` may unpack to, in its own size: random numbers hardly pack.
_MOST_PACKED = 16
#: What ``torch.load`` raises for bytes that are no checkpoint.
_UNPICKLING = (
    *(pickle.UnpicklingError, ValueError, LookupError, AttributeError, TypeError),
    struct.error,
)


def read_file(path: Path) -> tuple[Any, dict[str, str]]:
    """Content of a checkpoint file, on the CPU, and its metadata (safetensors only).

    Entries of ``.safetensors`` and of new-style ``torch.save`` files are mapped into memory, so
    what nobody looks at is never read from the disk.

    Args:
        path: ``.safetensors``, numpy's ``.npz``, a TorchScript archive (its ``state_dict`` is
            returned; none of its code is run), or anything else that
            ``torch.load(weights_only=True)`` reads.

    Raises:
        ValueError: for a file that is damaged, no checkpoint, or more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                return tensors, file.metadata() or {}
        if path.suffix == ".npz":
            return read_arrays(path), {}
        if is_torchscript(path):
            return read_archive(path, str(path)), {}
        refuse_packed(path, str(path))
        mapped = zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped), {}
    except UnsafeArchiveError:
        raise
    except (SafetensorError, RuntimeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{str(path)!r} is not a readable checkpoint: {first_line(error)}"
        ) from error
    except _UNPICKLING as error:
        what = "holds" if zipfile.is_zipfile(path) else "is no checkpoint, or holds"
        raise ValueError(
            f"{str(path)!r} {what} Python objects besides tensors and is not loaded, since that "
            "can run code; check that it is the file you meant to download, or export its state "
            "dict with torch.save(model.state_dict(), ...) first"
        ) from error


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Arrays of an ``.npz``, without objects of Python; two bytes of no type are bfloat16.

    Raises:
        UnsafeArchiveError: if it unpacks to much more than it is.
        ValueError: if it is damaged, or holds Python objects.
    """
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > _MOST_PACKED * max(path.stat().st_size, 2**20):
        raise UnsafeArchiveError(
            f"checkpoint {str(path)!r} is not read: it unpacks to {unpacked:,} bytes, as no "
            "weights do; check that it is the file you meant to download"
        )
    found = {}
    with np.load(path, allow_pickle=False) as arrays:
        for name in arrays.files:
            array = arrays[name]
            if array.dtype.kind == "V" and array.dtype.itemsize == 2:
                found[name] = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
            else:
                found[name] = torch.from_numpy(np.asarray(array, order="C"))
    return found


class UnsafeArchiveError(ValueError):
    """An archive holds more than weights, is damaged, or unpacks to more than it is."""


def read_archive(file: Path | BinaryIO, name: str) -> dict[str, Tensor]:
    """Weights of a TorchScript archive, see :func:`read_torchscript`.

    Args:
        name: What the file is called in the message.

    Raises:
        UnsafeArchiveError: naming the file, and what in it is no data or damaged.
    """
    try:
        return read_torchscript(file)
    except Exception as error:  # damaged pickles raise nearly anything
        raise UnsafeArchiveError(
            f"TorchScript archive {name!r} is not read: {first_line(error)}; check that it is the "
            "file you meant to download, or save its state dict as .safetensors where you trust it"
        ) from error


def refuse_packed(file: Path | BinaryIO, name: str) -> None:
    """Refuse a checkpoint that unpacks to much more than it is, see :func:`check_unpacked`.

    Raises:
        UnsafeArchiveError: naming the file and its part.
    """
    try:
        check_unpacked(file)
    except ValueError as error:
        raise UnsafeArchiveError(f"checkpoint {name!r} is not read: {error}") from error
    except zipfile.BadZipFile:
        pass  # PyTorch says what it thinks of it


def first_line(error: BaseException) -> str:
    """What an error of PyTorch says, without its advice to read the file unsafely."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if not lines or "weights_only" in lines[0]:
        return type(error).__name__
    return lines[0][:300]
