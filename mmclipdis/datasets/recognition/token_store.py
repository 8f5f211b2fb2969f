"""Frozen features of a list of images on disk, in files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import io
import json
import time
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from mmclipdis.clip.weights.files import first_line
from mmclipdis.utils.whole_files import whole_file, write_text

#: Most files of tokens; an interruption loses at most one of them for each process.
MAX_SHARDS = 256
#: Seconds after which an unfinished file is taken for one of a process that was killed.
_ABANDONED = 3600.0

Batch = tuple[Tensor, Sequence[dict[str, Any]]]
#: Tokens of a shard, the facts of its images, and the checksums of their tokens.
_Shard = tuple[np.ndarray, list[dict[str, Any]], list[int]]


class TokenStore:
    """Tokens ``(L, D)`` of every image of a list, and what else is to be kept of each.

    The folder holds ``index.json`` and a shard for every ``per_shard`` images:
    ``tokens_00000.npy``, float32 ``(n, L, D)``, read through a memory map, and ``facts_00000.pt``:
    a list of ``n`` dicts of numbers and texts, and ``n`` checksums of tokens and facts, which are
    compared when a process reads an image for the first time. A shard exists once its tokens have
    their name.

    Args:
        folder: Where it is.
        count: Images.
        shape: ``(L, D)``.
        per_shard: Images of a shard; the last may have fewer.
        key: Of what the tokens depend on. Part of each checksum, with the number of the image, so
            that a file of another store or another place is found out.
    """

    def __init__(
        self,
        folder: str | Path,
        count: int,
        shape: Sequence[int],
        per_shard: int,
        key: str = "",
    ) -> None:
        self.folder = Path(folder)
        self.count, self.per_shard, self.key = int(count), int(per_shard), str(key)
        self.shape = (int(shape[0]), int(shape[1]))
        self._open: dict[int, _Shard] = {}
        self._sound: set[int] = set()

    @classmethod
    def create(
        cls,
        folder: str | Path,
        count: int,
        shape: Sequence[int],
        batch: int,
        about: Any = None,
        key: str = "",
    ) -> TokenStore:
        """Start a store; a shard is a whole number of batches of ``batch`` images.

        ``about`` is written into its index for people to read.
        """
        per_shard = batch * -(-count // (batch * MAX_SHARDS))
        store = cls(folder, count, shape, per_shard, key)
        index = {"count": store.count, "shape": store.shape, "per_shard": per_shard, "key": key}
        content = json.dumps({**index, "about": about}, indent=2, default=repr)
        write_text(store.folder / "index.json", content)
        return store

    @classmethod
    def open(cls, folder: str | Path) -> TokenStore | None:
        """The store in a folder; None if there is none.

        Raises:
            ValueError: its index is damaged.
        """
        path = Path(folder) / "index.json"
        if not path.is_file():
            return None
        try:
            index = json.loads(path.read_text())
            return cls(folder, index["count"], index["shape"], index["per_shard"], index["key"])
        except (ValueError, TypeError, LookupError) as error:
            raise ValueError(f"{str(path)!r} is damaged ({error}); delete its folder.") from error

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> tuple[Tensor, dict[str, Any]]:
        """Tokens ``(L, D)``, a copy, and the facts of image ``row``.

        Raises:
            ValueError: they are not those that were written; says what to delete.
        """
        shard, place = divmod(row, self.per_shard)
        if shard not in self._open:
            self._open[shard] = self._read(shard)
        tokens, facts, checksums = self._open[shard]
        found = np.array(tokens[place])
        if row not in self._sound:
            if self._checksum(row, found, facts[place]) != checksums[place]:
                self._refuse(shard, f"the features of image {row} are not those that were written")
            self._sound.add(row)
        return torch.from_numpy(found), facts[place]

    def __getstate__(self) -> dict[str, Any]:
        # a worker process maps the files itself
        return {**self.__dict__, "_open": {}, "_sound": set()}

    def rows(self, shard: int) -> range:
        """The images of a shard."""
        return range(shard * self.per_shard, min((shard + 1) * self.per_shard, self.count))

    def bytes_of(self, images: int) -> int:
        """Bytes of the tokens of so many images."""
        return images * self.shape[0] * self.shape[1] * 4

    def missing(self) -> list[int]:
        """The shards that are not there, or are not as long as they have to be."""
        shards = range(-(-self.count // self.per_shard))
        return [shard for shard in shards if not self._is_whole(shard)]

    def write(self, shard: int, batches: Iterable[Batch]) -> None:
        """Write a shard from batches of tokens ``(B, L, D)`` and the facts of these images.

        Raises:
            ValueError: they are not the tokens of this shard.
            OSError: the disk is full, or cannot be written.
        """
        shape = (len(self.rows(shard)), *self.shape)
        facts: list[dict[str, Any]] = []
        checksums: list[int] = []
        rows = iter(self.rows(shard))
        with whole_file(self._path("tokens", shard)) as file:
            file.write(_header(shape))
            for tokens, more in batches:
                if tuple(tokens.shape) != (len(more), *self.shape):
                    raise ValueError(
                        f"{len(more)} images gave tokens {tuple(tokens.shape)}, expected "
                        f"{(len(more), *self.shape)}: all images must have one size."
                    )
                values = tokens.numpy().astype("<f4", copy=False)
                file.write(values.tobytes())
                # rows last: zip takes one more of what stands first
                for one, fact, row in zip(values, more, rows):
                    checksums.append(self._checksum(row, one, fact))
                facts.extend(more)
            if len(facts) != shape[0]:
                raise ValueError(f"shard {shard} has {shape[0]} images, got {len(facts)}.")
            with whole_file(self._path("facts", shard)) as other:  # first: tokens make it count
                torch.save({"facts": facts, "checksums": checksums}, other)
        self._open.pop(shard, None)
        self._sound.difference_update(self.rows(shard))

    def remove_abandoned(self) -> None:
        """Delete the unfinished files of processes that were killed a while ago."""
        for path in self.folder.glob(".*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    path.unlink()

    def _path(self, kind: str, shard: int) -> Path:
        return self.folder / f"{kind}_{shard:05d}.{'npy' if kind == 'tokens' else 'pt'}"

    def _is_whole(self, shard: int) -> bool:
        tokens = self._path("tokens", shard)
        if not (tokens.is_file() and self._path("facts", shard).is_file()):
            return False
        images = len(self.rows(shard))
        expected = len(_header((images, *self.shape))) + self.bytes_of(images)
        return tokens.stat().st_size == expected

    def _read(self, shard: int) -> _Shard:
        try:
            facts = torch.load(self._path("facts", shard), weights_only=True)
            tokens = np.load(self._path("tokens", shard), mmap_mode="r")
            count = len(self.rows(shard))
            if tokens.shape != (count, *self.shape) or tokens.dtype != np.dtype("<f4"):
                raise ValueError(f"tokens of {tokens.dtype} {tokens.shape}")
            if not len(facts["facts"]) == len(facts["checksums"]) == count:
                raise ValueError("another number of images")
            return tokens, facts["facts"], facts["checksums"]
        except FileNotFoundError:
            raise
        except Exception as error:  # of torch, numpy, pickle and zip, whatever is damaged
            self._refuse(shard, first_line(error), error)

    def _checksum(self, row: int, tokens: np.ndarray, facts: dict[str, Any]) -> int:
        """CRC-32 of what is kept of an image, tokens ``(L, D)``; a fraction of a millisecond."""
        start = zlib.crc32(f"{self.key} {row} {facts!r}".encode())
        return zlib.crc32(np.ascontiguousarray(tokens).data.cast("B"), start)

    def _refuse(self, shard: int, why: str, cause: Exception | None = None) -> NoReturn:
        path = self._path("tokens", shard)
        raise ValueError(
            f"features in {str(path)!r} are damaged ({why}); delete this file, and the next run "
            "computes its images again"
        ) from cause


def _header(shape: tuple[int, ...]) -> bytes:
    """How a .npy file of float32 starts."""
    buffer = io.BytesIO()
    content = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, content)
    return buffer.getvalue()
