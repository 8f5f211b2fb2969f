"""What a machine has no more of, in one line with the remedy, whoever found out."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import sys
from collections.abc import Iterator

import cv2
import torch

#: Exit code of a program whose reader has gone, as shells give it (128 + SIGPIPE).
CLOSED_PIPE = 141
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MEMORY = re.compile(
    r"out of memory|not enough memory|can't allocate memory|Unable to allocate|"
    r"Insufficient memory|Failed to allocate|CUBLAS_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
#: Packages whose absence is a broken installation rather than an option that is not there.
_REQUIRED = {"mmclipdis", "mmengine", "mmcv", "torch", "numpy", "tools", "tests"}
#: Name of a package to import -> to install.
_INSTALL = {"cv2": "opencv-python-headless", "PIL": "pillow", "sklearn": "scikit-learn",
            "yaml": "pyyaml", "skimage": "scikit-image"}  # fmt: skip


def resource_message(error: BaseException) -> str | None:
    """The line for a full disk, want of memory, a file in a folder's place or a missing package.

    Args:
        error: Of any library.

    Returns:
        None for every other error.
    """
    found = (describe(error) for describe in (_disk, _memory, _folder, _package))
    return next((message for message in found if message is not None), None)


def all_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error, then what it was raised from or while handling."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _disk(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return (
            f"the name '...{str(error.filename)[-60:]}' is too long for a file; give a shorter one"
        )
    if isinstance(error, OSError) and error.errno in _FULL:
        where = f" while writing {str(error.filename)!r}" if error.filename else ""
        return (
            f"no space is left on the disk{where} ({os.strerror(error.errno)}); make room, or write"
            " to another one (--work-dir, --out, TMPDIR). Files written before are as they were"
        )
    text = str(error)
    if isinstance(error, RuntimeError) and re.search(
        r"shared memory|\(shm\)|bus error", text, re.I
    ):
        return (
            "a worker of a data loader ran out of shared memory (/dev/shm); give the container more"
            " (docker run --shm-size=8g), or lower num_workers or batch_size of the dataloader"
        )
    return None


def _memory(error: BaseException) -> str | None:
    text = str(error)
    if isinstance(error, RuntimeError) and "DataLoader worker" in text and "killed" in text.lower():
        return (
            "a worker of a data loader was killed, most likely for want of memory; lower "
            "num_workers or batch_size of the dataloader"
        )
    gpu = isinstance(error, torch.cuda.OutOfMemoryError)
    library = type(error).__module__.split(".")[0] in ("builtins", "cv2", "torch")
    described = isinstance(error, (RuntimeError, cv2.error)) and library and _MEMORY.search(text)
    if not (gpu or isinstance(error, MemoryError) or described):
        return None
    on_gpu = gpu or "CUDA" in text or "CUBLAS" in text
    size = re.search(r"(?:allocate|requested?)\D{0,30}([\d.]+ ?(?:[KMGTPE]i?B|bytes))", text)
    asked = f" (asked for {size[1]})" if size else ""
    return (
        f"out of memory {'of the GPU' if on_gpu else 'of the machine'}{asked}; lower batch_size of "
        "the dataloader, the size of crops or windows (crop_size, model.test_cfg), or "
        "model.decode_head.class_chunk where the method has it"
        + ("; or train with --amp" if on_gpu else "; or use fewer num_workers")
    )


def _folder(error: BaseException) -> str | None:
    if not isinstance(error, (FileExistsError, NotADirectoryError)) or not error.filename:
        return None
    path = str(error.filename)
    if isinstance(error, FileExistsError) and not os.path.isfile(path):
        return None
    if error.strerror not in (os.strerror(errno.EEXIST), os.strerror(errno.ENOTDIR)):
        return None  # says more already
    while not os.path.exists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return (
        f"a folder is needed where the file {path!r} is; move it away, or name another folder "
        "(--work-dir, --out, --show-dir)"
    )


def _package(error: BaseException) -> str | None:
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    package = error.name.split(".")[0]
    if package in _REQUIRED or package in sys.stdlib_module_names:
        return None
    return (
        f"this needs the package {package!r}, which is not installed; run: pip install "
        f"{_INSTALL.get(package, package)}"
    )


def line_of(error: Exception) -> str:
    """What a converter prints of an error that it has caught; a closed pipe ends it here."""
    if is_closed_pipe(error):
        silence_output()
        sys.exit(CLOSED_PIPE)
    return resource_message(error) or str(error)


@contextlib.contextmanager
def raising_loggers() -> Iterator[None]:
    """Let a logger that cannot write end the program instead of printing a traceback a record.

    A full disk or a closed pipe is met at every line. What else goes wrong in a record is reported
    as ever.
    """
    original = logging.Handler.handleError

    def handle_error(self: logging.Handler, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise error
        original(self, record)

    logging.Handler.handleError = handle_error  # type: ignore[method-assign]
    try:
        yield
    finally:
        logging.Handler.handleError = original  # type: ignore[method-assign]


def is_closed_pipe(error: BaseException) -> bool:
    """Whether the reader of our output has gone, as ``head`` does."""
    if not any(isinstance(cause, BrokenPipeError) for cause in all_causes(error)):
        return False
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            return True
        except ValueError:  # closed by us
            continue
    return isinstance(error, BrokenPipeError) and error.filename is None


def silence_output() -> None:
    """Let what is left to print go nowhere; Python would complain about the pipe at its end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
