"""Downloads of large files: whole or not at all, and continued where they were interrupted.

What has come lies beside the target as ``NAME.KEY.incomplete``, where KEY stands for the address
and for the file's version on the server (its ``ETag`` or date, or the hash that is asked for). The
next try asks for the rest (``Range``) and, if the server still has that version, goes on from
there. Without a version nobody could tell, and it starts anew.

Ours because ``torch.hub`` and open_clip start anew each time, and huggingface_hub continues files
of its own hub only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import sys
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tqdm import tqdm

from mmclipdis.utils.locks import lock
from mmclipdis.utils.whole_files import make_folder

#: Seconds without an answer after which a server is given up.
TIMEOUT = 60
#: How often a connection that breaks is taken up again, as long as something comes.
TRIES = 5
_BLOCK = 2**20
#: What urlopen and reading raise about the network, not about our disk.
_NETWORK = (HTTPException, TimeoutError, ConnectionError, OSError, ValueError)


class DownloadError(Exception):
    """The file did not come; the text is the reason."""


def download(url: str, path: str | Path, sha256: str | None = None) -> Path:
    """Download a file, or what is missing of it; one that is there stays, if its hash is right.

    On a terminal a bar shows how far it is. Of two processes the second waits for the first.

    Args:
        url: Of ``http`` or ``https``.
        path: The file to write; it has this name when it is whole, checked and on the disk.
        sha256: In hexadecimal digits, of the whole file; None: it is not checked.

    Raises:
        DownloadError: It cannot be had, or ends early; what has come is kept for the next try.
        OSError: of the disk; it names the file.
        ValueError: It is not the file of this hash; it is removed.
    """
    path = Path(path)
    if _is_there(path, sha256):
        return path
    make_folder(path.parent)
    try:
        with _opened(url, path, sha256) as (answer, part):
            if answer is not None:
                _take(url, answer, part, path, sha256)
    except (HTTPError, HTTPException) as error:
        raise DownloadError(_reason(error)) from error
    except OSError as error:
        if error.filename:  # of our disk
            raise
        raise DownloadError(_reason(error)) from error
    return path


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def shown(url: str) -> str:
    """The URL without what may be secret in it: user, password, query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _is_there(path: Path, sha256: str | None) -> bool:
    return path.is_file() and (sha256 is None or sha256_of(path) == sha256.lower())


class _Part:
    """The file that grows, with what the server said of the whole."""

    def __init__(self, file: BinaryIO, path: Path, version: str | None, size: int) -> None:
        self.file, self.path, self.version, self.size = file, path, version, size
        self._ended = False

    @property
    def held(self) -> int:
        """Bytes that have come."""
        return self.file.seek(0, os.SEEK_END)

    @property
    def whole(self) -> bool:
        """Whether all has come; of a server that tells no size, whether its answer had an end."""
        return self.held == self.size if self.size else self._ended and self.held > 0

    def clear(self, size: int) -> None:
        """Begin anew, with a file of this size."""
        self.file.truncate(0)
        self.size = size

    def take(self, answer: HTTPResponse) -> None:
        """Append what an answer brings, with a bar."""
        bar: Any = tqdm(
            total=self.size or None,
            initial=self.held,
            unit="B",
            unit_scale=True,
            desc=self.path.name.rsplit(".", 2)[0],
            disable=not sys.stderr.isatty(),
        )
        with bar:
            while block := answer.read(_BLOCK):
                try:
                    self.file.write(block)
                except OSError as error:
                    raise OSError(error.errno, error.strerror, str(self.path)) from error
                bar.update(len(block))
        self._ended = True


@contextlib.contextmanager
def _opened(
    url: str, path: Path, sha256: str | None
) -> Iterator[tuple[HTTPResponse | None, _Part]]:
    """The server's answer and the file for it, locked; no answer where another brought the file."""
    answer = _ask(url)
    try:
        version = _version(answer)
        known = version or (f"sha256 {sha256}" if sha256 else None)
        key = hashlib.sha256(f"{url} {known}".encode()).hexdigest()[:16]
        key = key if known else secrets.token_hex(16)
        name = path.with_name(f"{path.name[:100]}.{key}.incomplete")
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        try:
            with os.fdopen(os.open(name, flags, 0o666), "r+b") as file:
                lock(file, wait=True)
                size = int(answer.headers.get("Content-Length") or 0)
                part = _Part(file, name, version, size)
                yield (None if _is_there(path, sha256) else answer), part
        finally:
            if known is None or (name.is_file() and not name.stat().st_size):
                name.unlink(missing_ok=True)
    finally:
        answer.close()


def _take(url: str, answer: HTTPResponse, part: _Part, path: Path, sha256: str | None) -> None:
    """Fill the file from the answer and from those that continue it, check it, give its name."""
    if answer.headers.get_content_type() == "text/html":
        raise DownloadError("the server answers with a web page")
    continues = bool(part.version or sha256)
    if part.size and part.held > part.size:
        part.clear(part.size)
    for attempt in range(TRIES):
        if part.whole:
            break
        before, reason = part.held, ""
        current = _rest(url, part) if attempt or before else answer
        try:
            part.take(current)
        except _NETWORK as error:
            if isinstance(error, OSError) and error.filename:
                raise
            reason = f" ({_reason(error)})"
        finally:
            current.close()
        if not part.whole and not (continues and part.held > before):
            break
    if not part.whole:
        later = "; the next try goes on from there" if continues and part.held else ""
        raise DownloadError(f"{part.held:,} bytes came of {part.size:,}{reason}{later}")
    _finish(url, part, path, sha256)


def _finish(url: str, part: _Part, path: Path, sha256: str | None) -> None:
    part.file.flush()
    os.fsync(part.file.fileno())
    if sha256 is not None and (found := sha256_of(part.path)) != sha256.lower():
        part.path.unlink()
        raise ValueError(
            f"what {shown(url)} sends is not {path.name}: its SHA-256 is {found}, not {sha256}; it "
            "was removed. Try again; if that ends here, too, the server has another file"
        )
    os.replace(part.path, path)


def _ask(url: str, **headers: str) -> HTTPResponse:
    request = Request(url, headers={"User-Agent": "mmclipdis", **headers})
    answer: HTTPResponse = urlopen(request, timeout=TIMEOUT)
    return answer


def _rest(url: str, part: _Part) -> HTTPResponse:
    """Ask for what is missing; a server that sends all of it, or of another version, is obeyed."""
    headers = {"Range": f"bytes={part.held}-"}
    if part.version:
        headers["If-Range"] = part.version
    answer = _ask(url, **headers) if part.held else _ask(url)
    begin = str(answer.headers.get("Content-Range") or "").partition("-")[0]
    if answer.status != 206 or begin != f"bytes {part.held}":
        if answer.status == 206:
            answer.close()
            answer = _ask(url)
        part.clear(int(answer.headers.get("Content-Length") or 0))
    return answer


def _version(answer: HTTPResponse) -> str | None:
    """What tells this content from others of the same address, as ``If-Range`` takes it."""
    tag = str(answer.headers.get("ETag") or "")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
