"""One training a work folder: two would write over each other's checkpoints."""

from __future__ import annotations

import os
import socket
import time
import weakref
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, get_world_size, is_main_process

from mmclipdis.utils import locks
from mmclipdis.utils.whole_files import make_folder, remove_leftovers

LOCK = ".training.lock"


class FolderLock:
    """Holds the lock of a folder until it is garbage, or its process dies.

    The lock is the system's, on a file that stays: a killed run's is no obstacle. A lock of the
    process rather than of the file, so that workers which outlive it do not keep it.
    """

    def __init__(self, folder: Path) -> None:
        self._file = open(folder / LOCK, "a+", encoding="utf-8")  # noqa: SIM115
        ours = locks.lock(self._file, of_process=True)
        if ours is False:
            self._file.seek(0)
            owner = self._file.read(200).strip() or "another process"
            self._file.close()
            raise ValueError(
                f"work folder {str(folder)!r} is in use: {owner} trains in it; wait for it, end it,"
                " or give another --work-dir"
            )
        if ours is None:  # two runs are not told where there are no locks
            return
        self._file.truncate(0)
        self._file.write(
            f"process {os.getpid()} on {socket.gethostname()}, since "
            f"{time.strftime('%Y-%m-%d %H:%M:%S')},"
        )
        self._file.flush()


#: Of this process: closing any file of a lock would release it.
_HELD: weakref.WeakValueDictionary[str, FolderLock] = weakref.WeakValueDictionary()


def lock_work_folder(folder: str | Path) -> FolderLock | None:
    """Take a work folder for the training of this process, and clear up after killed ones.

    To be called by all processes of a run, which all fail when the main one does. What a killed
    save left behind (``.NAME.RANDOM.tmp``) is removed.

    Returns:
        The lock, to be kept while training; None in other processes than the main one.

    Raises:
        ValueError: another process trains in it; the message names it.
        OSError: the folder cannot be made.
    """
    problem: list[Any] = [None]
    lock = None
    if is_main_process():
        try:
            lock = _lock(Path(folder))
        except (OSError, ValueError) as error:
            if get_world_size() == 1:
                raise
            problem = [str(error)]
    if get_world_size() > 1:
        broadcast_object_list(problem)
    if problem[0] is not None:
        raise ValueError(problem[0])
    return lock


def _lock(folder: Path) -> FolderLock:
    make_folder(folder)
    name = str(folder.resolve())
    held = _HELD.get(name)
    if held is None:
        held = _HELD[name] = FolderLock(folder)
    remove_leftovers(folder)
    return held
