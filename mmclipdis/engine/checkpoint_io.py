"""Reading checkpoints without running what they contain, and writing them in one step."""

from __future__ import annotations

import difflib
import io
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import barrier, is_main_process
from mmengine.fileio import register_backend
from mmengine.fileio.backends import LocalBackend
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as stock
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from mmclipdis.clip.weights.files import (
    UnsafeArchiveError,
    first_line,
    read_archive,
    refuse_packed,
)
from mmclipdis.clip.weights.torchscript import is_torchscript
from mmclipdis.engine.downloads import downloaded, shown
from mmclipdis.engine.slim_checkpoint import complete
from mmclipdis.utils.finite import check_weights, check_writable, named_tensors
from mmclipdis.utils.whole_files import whole_file, write_bytes

#: Where checkpoints have weights: mmengine's, those of an average (EMA), and detectron2's.
_WEIGHTS = ("state_dict", "ema_state_dict", "model")


class UnsafeCheckpointError(ValueError):
    """A checkpoint holds Python objects that only unsafe unpickling could rebuild."""


def is_remote(checkpoint: str | Path) -> bool:
    """Whether a checkpoint is named by a URL or a scheme such as ``torchvision://``."""
    return re.match(r"[\w+.-]+://", str(checkpoint)) is not None


class AtomicLocalBackend(LocalBackend):
    """Local files that appear complete or not at all: written aside, then renamed."""

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        """Write the bytes to a temporary file in the same folder and rename it over the target."""
        write_bytes(os.path.expanduser(filepath), obj)


def write_checkpoint(path: str | Path, content: dict[str, Any], overwrite: bool = True) -> None:
    """Write a checkpoint whole or not at all, as ``torch.save`` does otherwise.

    Raises:
        OSError: as :func:`mmclipdis.utils.whole_files.whole_file`, also for ``overwrite``.
        ValueError: a tensor holds NaN or infinity; see :mod:`mmclipdis.utils.finite`.
    """
    check_writable(named_tensors(content), path)
    with whole_file(path, overwrite) as file:
        torch.save(content, file)


class _StockHistory:
    """Stands in for mmengine's ``HistoryBuffer`` while a stock checkpoint is read."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.log, self.count = state["_log_history"], state["_count_history"]
        self.max_length = state["max_length"]


def _statistics_method(owner: object, name: str) -> str:
    """Stands in for ``getattr`` by which a stock checkpoint looks up statistics methods."""
    return name


def _readable_names() -> list[Any]:
    """What stock mmengine checkpoints contain besides tensors, under harmless replacements."""
    names: list[Any] = [
        (_StockHistory, "mmengine.logging.history_buffer.HistoryBuffer"),
        (_statistics_method, "builtins.getattr"),
        np.ndarray,
        np.dtype,
        type(np.dtype(np.float64)),
        type(np.dtype(np.float32)),
        type(np.dtype(np.int64)),
        type(np.dtype(np.int32)),
        type(np.dtype(np.uint8)),
        type(np.dtype(np.bool_)),
    ]
    from numpy._core import multiarray

    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        names.append((multiarray._reconstruct, f"{module}._reconstruct"))
        names.append((multiarray.scalar, f"{module}.scalar"))
    return names


def read_checkpoint(filename: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a local checkpoint as data: ``weights_only=True``, ``.safetensors`` or TorchScript.

    Checkpoints of stock mmengine are read, too: the few classes they contain are replaced by
    harmless ones while reading. No code of a TorchScript archive is run.

    Returns:
        The checkpoint; for safetensors and TorchScript a dict with the tensors under
        ``state_dict``.

    Raises:
        FileNotFoundError: there is no such file.
        UnsafeCheckpointError: it holds other Python objects, or is not a checkpoint at all.
        ValueError: some of its weights are not finite.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {str(path)!r} does not exist.")
    if path.suffix == ".safetensors":
        device = map_location if isinstance(map_location, (str, torch.device)) else "cpu"
        state, meta = _load_safetensors(path, str(device))
        return _checked({"state_dict": state, "meta": meta}, str(path))
    return _read(path, str(path), map_location)


def _load_safetensors(path: Path, device: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors of a file, and what it says of its data set; see :func:`complete`."""
    try:
        state = load_file(path, device=device)
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
        return complete(state, header, str(path))
    except SafetensorError as error:
        raise UnsafeCheckpointError(_why_unreadable(path, str(path), error)) from error


def _read(file: Path | io.BytesIO, name: str, map_location: Any) -> dict[str, Any]:
    """Content of a file of PyTorch, checked; ``name`` is what messages call it."""
    try:
        refuse_packed(file, name)
        if is_torchscript(file):
            return _checked({"state_dict": read_archive(file, name), "meta": {}}, name)
    except UnsafeArchiveError as error:
        raise UnsafeCheckpointError(str(error)) from error
    if isinstance(file, io.BytesIO):
        file.seek(0)
    try:
        with safe_globals(_readable_names()):
            checkpoint = torch.load(file, map_location=map_location, weights_only=True)
    except Exception as error:
        raise UnsafeCheckpointError(_why_unreadable(file, name, error)) from error
    hub = checkpoint.get("message_hub") if isinstance(checkpoint, dict) else None
    if isinstance(hub, dict) and "log_scalars" in hub:
        hub["log_scalars"] = {k: _as_history(v) for k, v in hub["log_scalars"].items()}
    return _checked(checkpoint, name)


def _checked(checkpoint: Any, name: str) -> Any:
    """The checkpoint, when its weights are finite."""
    if isinstance(checkpoint, Mapping):
        for state in (checkpoint, *(checkpoint.get(key) for key in _WEIGHTS)):
            if isinstance(state, Mapping):
                check_weights(state, name)
    return checkpoint


def _as_history(value: Any) -> Any:
    if isinstance(value, _StockHistory):
        return HistoryBuffer(value.log, value.count, value.max_length)
    return value


def _why_unreadable(file: Path | io.BytesIO, name: str, error: Exception) -> str:
    try:
        if isinstance(file, io.BytesIO):
            file.seek(0)
        allowed = {name[1] if isinstance(name, tuple) else None for name in _readable_names()}
        unsafe = sorted(set(get_unsafe_globals_in_checkpoint(file)) - allowed)
    except Exception:  # not a torch archive
        unsafe = []
    if unsafe:
        return (
            f"checkpoint {name!r} holds Python objects ({', '.join(unsafe[:5])}) that could "
            "run code when loaded; re-save its weights where you trust it: "
            "torch.save({'state_dict': checkpoint['state_dict']}, 'weights.pth')."
        )
    what = "it may be cut short or not a PyTorch checkpoint"
    if isinstance(error, pickle.UnpicklingError):
        what += ", or hold Python objects, which could run code"
    kind, reason = type(error).__name__, first_line(error)
    reason = kind if reason == kind else f"{kind}: {reason}"
    return f"checkpoint {name!r} cannot be read ({reason}); {what}; copy or download it again."


def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """mmengine's loader of local files; see :func:`read_checkpoint`."""
    return read_checkpoint(filename, map_location)


def load_from_http(filename: str, map_location: Any = None) -> dict[str, Any]:
    """mmengine's loader of URLs: download into torch's cache, then :func:`read_checkpoint`.

    mmengine's own unpickles whatever the server sends, and takes a file of the same name that came
    from elsewhere. The main process downloads first.

    Raises:
        FileNotFoundError, ValueError: as :func:`mmclipdis.engine.downloads.downloaded`.
        UnsafeCheckpointError: as :func:`read_checkpoint`.
    """
    try:
        if is_main_process():
            downloaded(filename)
    finally:
        barrier()
    path = downloaded(filename)
    try:
        return read_checkpoint(path, map_location)
    except UnsafeCheckpointError as error:
        raise UnsafeCheckpointError(
            f"{error} It came from {shown(filename)} and is kept; delete it to download it again."
        ) from error


def load_from_store(
    filename: str, map_location: Any = None, backend: str = "petrel"
) -> dict[str, Any]:
    """mmengine's loader of object stores (``s3://``, ``petrel://``), which reads what it gets
    safely.

    Raises:
        ImportError: the client of the store is not installed.
        UnsafeCheckpointError: as :func:`read_checkpoint`.
    """
    try:
        content = stock.get_file_backend(filename, backend_args={"backend": backend}).get(filename)
    except ImportError as error:
        raise ImportError(
            f"checkpoint {filename!r}: {first_line(error)}; or fetch the file and give its path"
        ) from error
    return _read(io.BytesIO(content), filename, map_location)


def refuse_scheme(filename: str, map_location: Any = None) -> dict[str, Any]:
    """In place of other loaders (``pavi://``, those of forks), which unpickle what they get.

    Raises:
        ValueError: always.
    """
    scheme = filename.partition("://")[0]
    raise ValueError(
        f"checkpoint {filename!r}: {scheme}:// is not read, since its loader could run code of the "
        "file; fetch the file and give its path"
    )


def load_by_name(filename: str, map_location: Any = None) -> dict[str, Any]:
    """mmengine's loader of names such as ``torchvision://resnet50``; reads what it gets safely.

    Raises:
        ValueError: there is no such name.
    """
    scheme, name = filename.split("://", 1)
    if scheme in ("torchvision", "modelzoo"):
        places = stock.get_torchvision_models()
    elif scheme == "mmcls":
        places = stock.get_mmcls_models()
    else:
        places = stock.get_external_models()
        name = stock.get_deprecated_model_names().get(name, name)
    if name not in places:
        near = difflib.get_close_matches(name, places)
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        raise ValueError(f"checkpoint {filename!r}: {scheme} has no model {name!r}{hint}")
    if not places[name].startswith(("http://", "https://")):  # open_mmlab.json may name files
        return read_checkpoint(Path(stock._get_mmengine_home()) / places[name], map_location)
    checkpoint = load_from_http(places[name], map_location)
    return stock._process_mmcls_checkpoint(checkpoint) if scheme == "mmcls" else checkpoint


# All that mmengine or a fork knows: none of their own, which may unpickle anything, is left.
for _prefixes, _loader in (
    (("",), load_from_local),
    (("http://", "https://"), load_from_http),
    ((r"(\S+\:)?s3://", r"(\S+\:)?petrel://"), load_from_store),
    (
        ("torchvision://", "modelzoo://", "open-mmlab://", "openmmlab://", "mmcls://"),
        load_by_name,
    ),
):
    CheckpointLoader.register_scheme(prefixes=_prefixes, loader=_loader, force=True)
for _prefix, _loader in tuple(CheckpointLoader._schemes.items()):
    if _loader.__module__ != __name__:
        CheckpointLoader.register_scheme(prefixes=_prefix, loader=refuse_scheme, force=True)
register_backend("atomic_local", AtomicLocalBackend)
