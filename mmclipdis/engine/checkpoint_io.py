"""Reading checkpoints without running what they contain, and writing them in one step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.fileio import register_backend
from mmengine.fileio.backends import LocalBackend
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from safetensors.torch import load_file
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals


class UnsafeCheckpointError(ValueError):
    """A checkpoint holds Python objects that only unsafe unpickling could rebuild."""


class AtomicLocalBackend(LocalBackend):
    """Local files that appear complete or not at all: written aside, then renamed."""

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        """Write the bytes to a temporary file in the same folder and rename it over the target."""
        target = Path(os.path.expanduser(filepath))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


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
    """Read a local checkpoint with ``weights_only=True``, or a ``.safetensors`` file.

    Checkpoints of stock mmengine are read, too: the few classes they contain are replaced by
    harmless ones while reading.

    Returns:
        The checkpoint; for safetensors a dict with the tensors under ``state_dict``.

    Raises:
        FileNotFoundError: there is no such file.
        UnsafeCheckpointError: it holds other Python objects, or is not a checkpoint at all.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {str(path)!r} does not exist.")
    if path.suffix == ".safetensors":
        device = map_location if isinstance(map_location, (str, torch.device)) else "cpu"
        return {"state_dict": load_file(path, device=str(device)), "meta": {}}
    try:
        with safe_globals(_readable_names()):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        raise UnsafeCheckpointError(_why_unreadable(path, error)) from error
    hub = checkpoint.get("message_hub") if isinstance(checkpoint, dict) else None
    if isinstance(hub, dict) and "log_scalars" in hub:
        hub["log_scalars"] = {k: _as_history(v) for k, v in hub["log_scalars"].items()}
    return checkpoint


def _as_history(value: Any) -> Any:
    if isinstance(value, _StockHistory):
        return HistoryBuffer(value.log, value.count, value.max_length)
    return value


def _why_unreadable(path: Path, error: Exception) -> str:
    try:
        allowed = {name[1] if isinstance(name, tuple) else None for name in _readable_names()}
        unsafe = sorted(set(get_unsafe_globals_in_checkpoint(path)) - allowed)
    except Exception:  # not a torch archive
        unsafe = []
    if unsafe:
        return (
            f"checkpoint {str(path)!r} holds Python objects ({', '.join(unsafe[:5])}) that could "
            "run code when loaded; re-save its weights where you trust it: "
            "torch.save({'state_dict': checkpoint['state_dict']}, 'weights.pth')."
        )
    return (
        f"checkpoint {str(path)!r} cannot be read ({type(error).__name__}: "
        f"{str(error).splitlines()[0] if str(error) else 'no message'}); "
        "it may be cut short or not a PyTorch checkpoint; copy or download it again."
    )


def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """mmengine's loader of local files; see :func:`read_checkpoint`."""
    return read_checkpoint(filename, map_location)


CheckpointLoader.register_scheme(prefixes="", loader=load_from_local, force=True)
register_backend("atomic_local", AtomicLocalBackend)
