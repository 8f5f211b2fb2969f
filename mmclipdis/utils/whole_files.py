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
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from mmclipdis.utils.locks import lock
from mmclipdis.utils.places import IN_CLONE, PACKAGE

#: What a disk says that takes no more.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: The temporary names of :func:`whole_file`.
_LEFTOVER = re.compile(r"\..{0,50}\.[0-9a-f]{32}\.tmp")


@contextlib.contextmanager
def whole_file(path: str | Path, overwrite: bool = True) -> Iterator[BinaryIO]:
    """A binary file to write, which takes the name ``path`` at the end of the block.

    - The folder is made. The file is created in it exclusively, under a name that nobody can
      guess (``.NAME.RANDOM.tmp``), so that no file or link that another put there is written to.
    - Its content is synced to the disk before it is renamed, and the folder afterwards.
    - It has the permissions of the file it replaces, or else those of any new file (the umask).
    - A link at ``path`` is replaced by the file; what it points to stays as it is. Writing through
      it would let whoever puts a link there choose which of our files is overwritten.
    - After any failure, an interruption included, ``path`` is as before and the new file is gone.
    - Without ``overwrite`` a file that is there at the end stays, whoever put it there meanwhile.

    Raises:
        FileExistsError: ``path`` exists, and ``overwrite`` is false.
        OSError: the folder cannot be made or written, the disk is full, or ``path`` is a folder, a
            device or the like; the message names ``path``.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:50]}.{secrets.token_hex(16)}.tmp")
    refuse_existing(path, overwrite)
    with _naming(path, temporary):
        make_folder(path.parent)
        mode = _mode_of(path)
        created, held = False, None
        try:
            with open(temporary, "xb") as file:
                created, held = True, _hold(file)
                if mode is not None and mode != os.stat(temporary).st_mode & 0o777:
                    os.chmod(temporary, mode)
                yield file
                file.flush()
                os.fsync(file.fileno())
            _publish(temporary, path, overwrite)
        except BaseException:
            if created:
                with contextlib.suppress(OSError):  # the first error is the one to tell
                    temporary.unlink()
            raise
        finally:
            if held is not None:
                os.close(held)
    _sync_folder(path.parent)


def make_folder(folder: str | Path) -> None:
    """Make a folder and those above it; it may be there.

    Raises:
        OSError: it cannot be made; a file that stands in the way is named.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        for part in (folder, *folder.parents):
            if part.exists() and not part.is_dir():
                raise NotADirectoryError(
                    errno.ENOTDIR, "a file stands where a folder is needed; move it away", str(part)
                ) from None
        raise


def refuse_existing(target: str | Path, overwrite: bool) -> None:
    """Refuse to write over what the user has, unless told to; for a tool's start.

    Raises:
        FileExistsError: ``target`` is there and ``overwrite`` is false, or it ships with an
            installed package, which is never written into.
        IsADirectoryError: it is a folder, which no file replaces.
    """
    if not IN_CLONE and Path(target).resolve().is_relative_to(PACKAGE):
        raise FileExistsError(
            f"{str(target)!r} came with the installed package and is left as it is; name another "
            "file, or run the tool in a clone of the repository"
        )
    if os.path.isdir(target) and not os.path.islink(target):
        raise IsADirectoryError(f"{str(target)!r} is a folder; name a file in it")
    if os.path.lexists(target) and not overwrite:
        raise FileExistsError(
            f"{str(target)!r} exists and is left as it is; name another file, or give --overwrite"
        )


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Remove the unfinished files that killed runs of :func:`whole_file` left in a folder.

    A file that a living process writes is locked by it, and left alone. Where there are no locks, a
    file counts as left behind when it is a day old.

    Returns:
        What was removed.
    """
    removed = []
    with contextlib.suppress(OSError):
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _LEFTOVER.fullmatch(entry.name)]
        for name in names:
            path = Path(folder) / name
            with contextlib.suppress(OSError):  # gone meanwhile, or not ours to remove
                if _abandoned(path):
                    path.unlink()
                    removed.append(path)
    return removed


def write_bytes(path: str | Path, data: bytes | memoryview, overwrite: bool = True) -> None:
    """Write a file whole or not at all; see :func:`whole_file`."""
    with whole_file(path, overwrite) as file:
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


def _publish(temporary: Path, path: Path, overwrite: bool) -> None:
    """Give a file its name; without ``overwrite`` in one step with the look whether it is free."""
    if overwrite:
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        refuse_existing(path, overwrite)
        raise
    except OSError:  # a file system without hard links
        refuse_existing(path, overwrite)
        os.replace(temporary, path)
    else:
        temporary.unlink()


def _hold(file: BinaryIO) -> int | None:
    """Lock a file for as long as it has its temporary name; a descriptor to close after that."""
    return os.dup(file.fileno()) if lock(file) else None


def _abandoned(path: Path) -> bool:
    """Whether no living process writes the file."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    try:
        free = lock(descriptor)
        if free is None:
            return time.time() - os.fstat(descriptor).st_mtime > 86400
        return free
    finally:
        os.close(descriptor)


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
