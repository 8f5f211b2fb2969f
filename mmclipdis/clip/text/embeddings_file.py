"""Files of text embeddings: those that others publish, and our own with what they were made from.

Text embeddings are not interchangeable between models, not even between those of one width: of
another model's, the accuracy is near chance and nothing else tells. So the width is always
compared, and files written here carry a fingerprint of their text tower and the class names. The
fingerprint can only be compared where there is a text tower, which a model that reads a file has
not: ``tools/model_converters/text_embeddings.py`` writes files, and compares them with a tower.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor

from mmclipdis.clip.weights.files import read_file
from mmclipdis.utils.whole_files import write_bytes


def read_embeddings(
    path: str | Path,
    expected_dim: int | None = None,
    names: Sequence[str] | None = None,
    fingerprint: str | None = None,
) -> Tensor:
    """Unit text embeddings ``(Q, E)`` float32 of a file; rows of another length are normalised.

    Args:
        path: ``.npy`` (the official files of DeCLIP and CLIPSelf), or a ``.pt`` or
            ``.safetensors`` of one tensor ``(Q, E)``.
        expected_dim: Channels of the joint space of the image tower; None takes any.
        names: Class names, one a row; compared with those of the file if it has any.
        fingerprint: That of the text tower in use (``TextTower.fingerprint()``); compared with
            that of the file if it has one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unreadable file, anything but one finite tensor with two axes, another
            width, another number of rows or other names, or embeddings of another text tower.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no file of text embeddings at {str(path)!r}")
    where = f"text embeddings in {str(path)!r}"
    embeddings, metadata = _content(path, where)
    if expected_dim is not None and embeddings.shape[1] != expected_dim:
        raise ValueError(
            f"{where} have {embeddings.shape[1]} channels, the image tower has {expected_dim}: "
            "they are of another CLIP; take those of the model in use, or compute them with its "
            "text encoder"
        )
    stored = metadata.get("fingerprint")
    if fingerprint is not None and stored is not None and stored != fingerprint:
        raise ValueError(
            f"{where} were computed with another text tower (fingerprint {stored[:12]}, that in "
            f"use has {fingerprint[:12]}); compute them again with the one in use"
        )
    if names is not None:
        _check_names(len(embeddings), metadata.get("names"), names, where)
    return F.normalize(embeddings, dim=1)


def write_embeddings(
    path: str | Path,
    embeddings: Tensor,
    names: Sequence[str],
    fingerprint: str,
    overwrite: bool = True,
) -> None:
    """Write text embeddings that :func:`read_embeddings` can check, in one step.

    Args:
        path: ``.safetensors``.
        embeddings: ``(Q, E)``.
        names: Class names, one a row.
        fingerprint: ``TextTower.fingerprint()`` of the tower that made them.
        overwrite: Replace an existing file.

    Raises:
        FileExistsError: the file is there, and ``overwrite`` is false.
        ValueError: for another suffix (others hold no fingerprint), or rows and names that differ
            in number.
    """
    path = Path(path).expanduser()
    if path.suffix != ".safetensors":
        raise ValueError(
            f"text embeddings go to a .safetensors, which can hold their fingerprint; got {path}"
        )
    _check_names(len(embeddings), None, names, "these text embeddings")
    metadata = {"names": json.dumps(list(names)), "fingerprint": fingerprint}
    data = save({"embeddings": embeddings.detach().cpu().contiguous()}, metadata=metadata)
    write_bytes(path, data, overwrite)


def _content(path: Path, where: str) -> tuple[Tensor, dict[str, str]]:
    """The embeddings of a file in float32, not normalised, and its metadata."""
    content: Any
    metadata: dict[str, str] = {}
    if path.suffix in (".npy", ".npz"):
        content = _read_npy(path)
    else:
        content, metadata = read_file(path)
        if isinstance(content, dict) and len(content) == 1:
            content = next(iter(content.values()))
    if not isinstance(content, Tensor) or content.ndim != 2 or not content.is_floating_point():
        found = (
            f"{content.dtype} {tuple(content.shape)}"
            if isinstance(content, Tensor)
            else type(content).__name__
        )
        raise ValueError(f"{where} must be one tensor of shape (queries, channels), found {found}")
    embeddings = content.detach().float()
    lengths = embeddings.norm(dim=1)
    bad = (~lengths.isfinite() | (lengths == 0)).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"{where}: row {bad[0]} is zero or not finite; compute them again")
    return embeddings.clone(), metadata


def _read_npy(path: Path) -> Tensor:
    try:
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise TypeError("it is an .npz of several; save the one of the embeddings as .npy")
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        return torch.from_numpy(np.ascontiguousarray(native))
    except MemoryError as error:
        raise ValueError(
            f"{str(path)!r} is not a readable array of numbers: its head promises more than the "
            f"memory holds; the file has {path.stat().st_size:,} bytes"
        ) from error
    except (ValueError, TypeError, OSError, EOFError, BadZipFile) as error:
        raise ValueError(f"{str(path)!r} is not a readable array of numbers: {error}") from error


def _check_names(rows: int, stored: str | None, names: Sequence[str], where: str) -> None:
    if rows != len(names):
        raise ValueError(f"{where} have {rows} rows for {len(names)} classes; one each is needed")
    if stored is None:
        return
    for row, (own, wanted) in enumerate(zip(json.loads(stored), names, strict=True)):
        if own != wanted:
            raise ValueError(
                f"{where} are of other classes or another order: row {row} is {own!r}, expected "
                f"{wanted!r}"
            )
