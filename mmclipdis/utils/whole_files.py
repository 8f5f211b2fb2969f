"""Files that are written whole or not at all.

What is written goes to a file beside the target and takes the target's name when it is complete
and on the disk, so that a reader finds the old content or the new one, and so does the next run
after this one was killed or the power failed.

Ours because no maintained package does all of this: ``safer`` never syncs, ``atomicwrites`` was
given up by its author, and mmengine's backends write in place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

#: What a disk says that takes no more.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file to write, which takes the name ``path`` at the end of the block.

    - The folder is made. The file is created in it exclusively, under a name that nobody can
      guess (``.NAME.RANDOM.tmp``), so that no file or link that another put there is written to.
    - Its content is synced to the disk before it is renamed, and the folder afterwards.
    - It has the permissions of the file it replaces, or else those of any new file (the umask).
    - A link at ``path`` is replaced by the file; what it points to stays as it is. Writing through
      it would let whoever puts a link there choose which of our files is overwritten.
    - After any failure, an interruption included, ``path`` is as before and the new file is gone.

    Raises:
        OSError: the folder cannot be made or written, the disk is full, or ``path`` is a folder, a
            device or the like; the message names ``path``.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:50]}.{secrets.token_hex(16)}.tmp")
    with _naming(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = _mode_of(path)
        created = False
        try:
            with open(temporary, "xb") as file:
                created = True
                if mode is not None and mode != os.stat(temporary).st_mode & 0o777:
                    os.chmod(temporary, mode)
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            if created:
                with contextlib.suppress(OSError):  # the first error is the one to tell
                    temporary.unlink()
            raise
    _sync_folder(path.parent)


def write_bytes(path: str | Path, data: bytes | memoryview) -> None:
    """Write a file whole or not at all; see :func:`whole_file`."""
    with whole_file(path) as file:
        file.write(data)


def write_text(path: str | Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all; see :func:`whole_file`."""
    write_bytes(path, text.encode())


def write_picture(path: str | Path, picture: Image.Image, **options: Any) -> None:
    """Write a picture in the format that the ending of ``path`` says, whole or not at all.

    Args:
        path: To write; see :func:`whole_file`.
        picture: What PIL can write in this format.
        options: Of the format, as in PIL's ``Image.save``.

    Raises:
        ValueError: no format has this ending.
    """
    suffix = Path(path).suffix.lower()
    kind = Image.registered_extensions().get(suffix)
    if kind not in Image.SAVE:
        raise ValueError(
            f"cannot write {str(path)!r}: {suffix!r} is no ending of a picture; use .png"
        )
    with whole_file(path) as file:
        picture.save(file, format=kind, **options)


def _mode_of(path: Path) -> int | None:
    """Permissions of the file at ``path``; None if there is none, or a link.

    Raises:
        OSError: there is something that must not be replaced by a file.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(mode):
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):  # /dev/null would be gone for everybody
        raise OSError(errno.EINVAL, "Not a regular file, cannot be replaced", str(path))
    return mode & 0o777


@contextlib.contextmanager
def _naming(path: Path, temporary: Path) -> Iterator[None]:
    """Turn what the disk refuses within the block into an OSError about ``path``."""
    try:
        yield
    except Exception as error:
        refusal = _refusal(error)
        about = {None, str(temporary), *map(str, path.parents)}
        if refusal is None or refusal.filename not in about:
            raise
        if refusal.errno is None:  # numpy's "1000 requested and 10 written"
            raise OSError(f"cannot write {str(path)!r}: {refusal}") from error
        raise OSError(refusal.errno, refusal.strerror, str(path)) from error


def _refusal(error: BaseException | None) -> OSError | None:
    """The OSError that ``error`` is, or that stands behind it when a writer tells another tale.

    PyTorch answers a full disk with a RuntimeError about positions in the archive.
    """
    if isinstance(error, OSError):
        # errors of other kinds have a meaning of their own, such as PIL's UnidentifiedImageError
        return error if error.errno is not None or type(error) is OSError else None
    cause = error.__cause__ or error.__context__ if error is not None else None
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _FULL:
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _sync_folder(folder: Path) -> None:
    """Have the new name on the disk, too, where the system can; the file is whole in any case."""
    with contextlib.suppress(OSError):  # Windows opens no folders; some file systems sync none
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
