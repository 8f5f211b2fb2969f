"""Locks of files between processes, where the system has them."""

from __future__ import annotations

from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def lock(file: IO[Any] | int, wait: bool = False, of_process: bool = False) -> bool | None:
    """Take the lock of a file, until it is closed or this process dies.

    Args:
        file: An open file or its descriptor.
        wait: Until another process lets it go.
        of_process: A lock that belongs to this process alone. Otherwise it belongs to the open
            file, which children of the process hold as well.

    Returns:
        Whether it is ours; None where there are no locks, as on Windows and some network drives.
    """
    if fcntl is None:
        return None
    take = fcntl.lockf if of_process else fcntl.flock
    try:
        take(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
