"""Reading checkpoints without running what they contain, and writing them in one step."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier, is_main_process
from mmengine.fileio import register_backend
from mmengine.fileio.backends import LocalBackend
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as stock
from safetensors.torch import load_file
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from mmclipdis.engine.finite import check_finite, named_tensors
from mmclipdis.utils.whole_files import whole_file, write_bytes


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
        ValueError: a tensor holds NaN or infinity; see :mod:`mmclipdis.engine.finite`.
    """
    check_finite(named_tensors(content), path)
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


def load_from_http(filename: str, map_location: Any = None) -> dict[str, Any]:
    """mmengine's loader of URLs: download into torch's cache, then :func:`read_checkpoint`.

    mmengine's own unpickles whatever the server sends. The main process downloads first.

    Raises:
        FileNotFoundError: the download failed.
        UnsafeCheckpointError: as :func:`read_checkpoint`.
    """
    try:
        if is_main_process():
            _download(filename)
    finally:
        barrier()
    return read_checkpoint(_download(filename), map_location)


def _download(url: str) -> Path:
    """Return the file in ``torch.hub``'s cache, downloaded if it is not there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(urlparse(url).path)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), progress=os.isatty(0))
        except OSError as error:  # urllib's errors are of this kind
            raise FileNotFoundError(
                f"cannot download checkpoint {url} ({error}); download it by other means and give "
                "the file."
            ) from error
    return path


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


# The loaders left to mmengine (s3://, petrel://, pavi://) use torch.load, which is safe by default.
for _prefixes, _loader in (
    (("",), load_from_local),
    (("http://", "https://"), load_from_http),
    (
        ("torchvision://", "modelzoo://", "open-mmlab://", "openmmlab://", "mmcls://"),
        load_by_name,
    ),
):
    CheckpointLoader.register_scheme(prefixes=_prefixes, loader=_loader, force=True)
register_backend("atomic_local", AtomicLocalBackend)
