"""Reading checkpoint files without running code from them."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

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
        path: ``.safetensors``, a TorchScript archive (its ``state_dict`` is returned), or anything
            else that ``torch.load(weights_only=True)`` reads.

    Raises:
        ValueError: for a file that is damaged, no checkpoint, or more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                return tensors, file.metadata() or {}
        if _is_torchscript(path):
            archive: Any = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
            return dict(archive.state_dict()), {}
        mapped = zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped), {}
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{str(path)!r} is not a readable checkpoint: {error}") from error
    except _UNPICKLING as error:
        what = "holds" if zipfile.is_zipfile(path) else "is no checkpoint, or holds"
        raise ValueError(
            f"{str(path)!r} {what} Python objects besides tensors and is not loaded, since that "
            "can run code; check that it is the file you meant to download, or export its state "
            "dict with torch.save(model.state_dict(), ...) first"
        ) from error


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
