"""The checkpoints of a work folder: which is the newest, and which of them can be read."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path

from mmclipdis.engine.checkpoint_io import is_remote, read_checkpoint
from mmclipdis.utils.finite import first_nonfinite, saved_entries

#: Written by mmengine beside the checkpoints: the path of the last, as it was then.
POINTER = "last_checkpoint"


def saved_checkpoints(folder: str | Path) -> list[Path]:
    """Checkpoints of a run that lie in ``folder``, the newest first.

    The first is the one of which ``last_checkpoint`` names the file, unless a kill left one that is
    both further and younger. Files of more iterations that are older belong to an earlier run in
    the same folder; they come last.
    """
    folder = Path(folder)
    steps = {
        path: int(match[1])
        for path in folder.glob("*.pth")
        if (match := re.fullmatch(r"(?:iter|epoch)_(\d+)\.pth", path.name)) and path.is_file()
    }
    last = folder / Path(_pointed_to(folder)).name
    if not last.is_file():
        return sorted(steps, key=lambda path: -steps[path])
    reached, written = steps.get(last, -1), last.stat().st_mtime

    def order(path: Path) -> tuple[int, int]:
        further = steps[path] > reached >= 0
        younger = path.stat().st_mtime > written
        return (0 if further and younger else 2 if further else 1), -steps[path]

    listed = sorted(steps, key=order)
    if last not in steps:  # a file name of the user's own
        listed.insert(0, last)
    return listed


def newest_checkpoint(folder: str | Path) -> str | None:
    """The newest checkpoint of a work folder that is whole; None if the folder has none at all.

    Files of the folder itself come first: ``last_checkpoint`` holds a full path, and in a copied
    folder that is the original's. Damaged files are warned of and passed over.

    Raises:
        ValueError: there are checkpoints, and each of them is damaged.
    """
    damaged: list[Path] = []
    named = _pointed_to(folder)
    for path in saved_checkpoints(folder):
        if is_whole(path):
            if not damaged and named and not (Path(folder) / Path(named).name).is_file():
                warnings.warn(
                    f"{POINTER} of {str(folder)!r} names {Path(named).name!r}, which is not there; "
                    f"continuing from {path.name!r}",
                    stacklevel=2,
                )
            if damaged:
                warnings.warn(
                    f"{_names(damaged)} is cut short or damaged, as a kill or a full disk leaves "
                    f"it; continuing from the one before, {str(path)!r}",
                    stacklevel=2,
                )
            return str(path)
        damaged.append(path)
    if not damaged and is_remote(named):  # a checkpoint hook with an out_dir saves elsewhere
        return named
    if not damaged and named and Path(named).is_file():
        if is_whole(Path(named)):
            return named
        damaged.append(Path(named))
    if damaged:
        raise ValueError(
            f"no checkpoint of {str(folder)!r} can be read: {_names(damaged)} is cut short or "
            "damaged; copy it again, or start anew in another --work-dir"
        )
    return None


def last_good_checkpoint(
    folder: str | Path, constant: set[str] | frozenset[str] = frozenset()
) -> str | None:
    """The newest checkpoint of a folder that can be read and holds finite tensors only.

    ``constant`` as for :func:`~mmclipdis.utils.finite.saved_entries`.
    """
    for path in saved_checkpoints(folder):
        try:
            content = read_checkpoint(path)
        except ValueError:
            continue
        if first_nonfinite(saved_entries(content, constant)) is None:
            return str(path)
    return None


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is as it was written: by its checksums, which PyTorch does not compare.

    A file of an old PyTorch has none, and is read.
    """
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
                # PyTorch writes 0 when it is told to compute none
                return damaged is None or archive.getinfo(damaged).CRC == 0
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError):
            return False
    try:
        read_checkpoint(path)
    except (OSError, ValueError):
        return False
    return True


def _pointed_to(folder: str | Path) -> str:
    pointer = Path(folder) / POINTER
    if not pointer.is_file():
        return ""
    text = pointer.read_text(errors="replace").strip()
    # a system may refuse to look for what is no name of a file
    return text if len(text) < 4096 and len(Path(text).name) < 256 and "\0" not in text else ""


def _names(paths: list[Path]) -> str:
    shown = ", ".join(repr(str(path)) for path in paths[:2])
    return shown + (f" and {len(paths) - 2} more" if len(paths) > 2 else "")
