"""Where class embeddings are kept: in memory with the tower, and on disk for the next run.

An entry is valid for one state of the weights. Two questions are asked of the weights: "have they
changed since?" (often, so it must be cheap) and "which are they?" (once a state, for the disk).
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mmclipdis.utils.whole_files import write_bytes

#: Directory; None for the default one; False for no disk at all.
CacheDir = str | Path | Literal[False] | None

#: Matrices of more entries are sampled when asking whether they have changed.
_LARGE = 65536
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def default_cache_dir() -> Path:
    """``$MMCLIPDIS_CACHE``, or else ``mmclipdis`` in ``$XDG_CACHE_HOME`` or in ``~/.cache``.

    A cache in ``~/.cache`` stays in use, unless there is one in ``$XDG_CACHE_HOME``. Not by
    platformdirs, which has other places on macOS and Windows: there, too, torch.hub and Hugging
    Face keep their files in ``~/.cache``, and so did mmclipdis ever since.
    """
    chosen = os.environ.get("MMCLIPDIS_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    usual = Path("~/.cache/mmclipdis").expanduser()
    home = Path(os.environ.get("XDG_CACHE_HOME", "")).expanduser()
    if not home.is_absolute():  # to be ignored, says the XDG specification
        return usual
    return usual if usual.is_dir() and not (home / "mmclipdis").is_dir() else home / "mmclipdis"


def weights_version(module: nn.Module) -> tuple[Any, ...]:
    """A value that differs once a weight of ``module`` has changed; a few milliseconds.

    Two witnesses a tensor. PyTorch's version counter sees everything done to the parameter itself,
    such as ``load_state_dict`` and optimizer steps. It does not see writes through
    ``parameter.data`` (mmengine's EMA hook swaps weights that way); those are seen by the sum of
    bit patterns, which for a large matrix is taken over the start of every row and a few whole
    rows. Not seen: single entries poked through ``.data`` in the rest of a large matrix.
    """
    tensors = list(module.state_dict(keep_vars=True).values())
    identity = tuple(
        (t.data_ptr(), -1 if t.is_inference() else t._version, t.dtype, t.device, tuple(t.shape))
        for t in tensors
    )
    sums = [_bit_sum(t.detach()) for t in tensors]
    return (*identity, *torch.stack(sums).tolist()) if sums else identity


def _bit_sum(tensor: Tensor) -> Tensor:
    """Sum modulo 2^64 of the bit patterns of ``tensor``, or of a sample of them if it is large."""
    if tensor.ndim < 2 or tensor.numel() <= _LARGE:
        return _sum_all_bits(tensor)
    matrix = tensor.flatten(1)
    some_rows = matrix[:: max(1, len(matrix) // 8)]
    return _sum_all_bits(matrix[:, :4]) + _sum_all_bits(some_rows)


def _sum_all_bits(tensor: Tensor) -> Tensor:
    flat = tensor.contiguous().view(-1)
    size = flat.element_size()
    # Eight bytes at once are the fastest, where size and alignment allow them.
    wide = 8 if not (flat.numel() * size % 8 or flat.storage_offset() * size % 8) else size
    return flat.view(_INTEGERS[wide]).sum(dtype=torch.int64)


def weights_fingerprint(module: nn.Module, salt: str) -> str:
    """SHA-256 of names, types, shapes and bytes of the weights of ``module``, and of ``salt``."""
    digest = hashlib.sha256(salt.encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()


class MemoryCache:
    """The last few embeddings of one state of the weights.

    Args:
        size: How many vocabularies are kept.
    """

    def __init__(self, size: int = 8) -> None:
        self.size = size
        self._version: tuple[Any, ...] | None = None
        self._entries: OrderedDict[str, Tensor] = OrderedDict()

    def get(self, version: tuple[Any, ...], key: str) -> Tensor | None:
        """The embeddings, or None if they were never stored for these weights."""
        if version != self._version or key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, version: tuple[Any, ...], key: str, embeddings: Tensor) -> None:
        """Keep ``embeddings``; those of other weights and the oldest beyond :attr:`size` go."""
        if version != self._version:
            self._entries.clear()
            self._version = version
        self._entries[key] = embeddings
        if len(self._entries) > self.size:
            self._entries.popitem(last=False)


def cache_file(cache_dir: CacheDir, key: str) -> Path | None:
    """File of an entry; None if the disk is not to be used."""
    if cache_dir is False:
        return None
    directory = default_cache_dir() if cache_dir is None else Path(cache_dir).expanduser()
    return directory / f"text_{key[:40]}.safetensors"


def read_cached(path: Path, key: str, shape: tuple[int, ...]) -> Tensor | None:
    """Embeddings of ``path``; None if there are none.

    They must have the digest that was stored with them. A damaged file is reported and ignored.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            embeddings: Tensor = file.get_tensor("embeddings")
            metadata = file.metadata() or {}
        reason = None
        if metadata.get("key") != key or tuple(embeddings.shape) != shape:
            reason = f"it holds {tuple(embeddings.shape)} for key {metadata.get('key')}"
        elif not bool(embeddings.isfinite().all()):
            reason = "it holds values that are not finite"
        elif "digest" not in metadata:  # of a version that wrote none
            return None
        elif metadata["digest"] != _content_digest(embeddings):
            reason = "its content is not what was written"
    except (SafetensorError, OSError) as error:
        reason = str(error)
    if reason is None:
        return embeddings
    warnings.warn(
        f"cached text embeddings in {str(path)!r} are damaged ({reason}); computing them again",
        stacklevel=3,
    )
    return None


def _content_digest(embeddings: Tensor) -> str:
    digest = hashlib.sha256(f"{embeddings.dtype} {tuple(embeddings.shape)};".encode())
    digest.update(embeddings.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_cached(path: Path, key: str, embeddings: Tensor) -> None:
    """Store ``embeddings`` so that a reader, in whatever process, sees all of them or no file.

    A disk that cannot be written is reported by a warning: the cache only saves time.
    """
    embeddings = embeddings.detach().cpu().contiguous()
    metadata = {"key": key, "digest": _content_digest(embeddings)}
    data = save({"embeddings": embeddings}, metadata=metadata)
    try:
        write_bytes(path, data)
    except OSError as error:
        warnings.warn(
            f"text embeddings are not cached: {error}; choose another directory with "
            "MMCLIPDIS_CACHE or cache_dir, or cache_dir=False",
            stacklevel=3,
        )
