"""What a run over many photos has done so far: a file that only grows, a line of JSON a photo.

It is what ``--resume`` reads, and what the tables and the json of COCO are made of at the end, so
that a run keeps in memory which photos are done, and nothing of what was found in them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from mmclipdis.commands.usage import Mistake
from mmclipdis.utils.locks import lock
from mmclipdis.utils.whole_files import make_folder, remove_leftovers
from mmclipdis.version import __version__

NAME = "progress.jsonl"


class Progress:
    """The file ``progress.jsonl`` of an output folder, held by one run at a time.

    Its first line says what was asked for. Then come lines with ``photo`` and what was found in it
    (``file``, the name of its pictures, and more), or ``photo`` and ``error``; and, when all photos
    were gone through, ``{"finished": true}``. What the last line lacks of its end is dropped.

    Args:
        folder: Made if it is not there.
        options: What decides about results, by the name of the option.
        resume: Keep what is done already.
        overwrite: Begin again where an earlier run was not finished.

    Raises:
        Mistake: the folder cannot be written, another run writes into it, an earlier one was not
            finished, or, with ``resume``, was asked for something else.
    """

    def __init__(
        self, folder: Path, options: Mapping[str, Any], resume: bool, overwrite: bool
    ) -> None:
        self.path = folder / NAME
        self.done: dict[str, str] = {}
        self._names: set[str] = set()
        #: First line of a run that has come to no photo yet: until then an earlier one stays.
        self._begin: Mapping[str, Any] | None = None
        #: Pictures that an earlier run left here.
        self.pictures: frozenset[Path] = frozenset()
        self._file = _opened(folder)
        header = {"mmclipdis": __version__, **options}
        try:
            found, finished = self._read()
            places = picture_folders(folder, (found or {}).get("--format") or ())
            names = [f"{name}.png" for name in self.done.values()]
            self.pictures = frozenset(place / name for place in places for name in names)
            if self.done and resume and found is not None:
                _check_same(self.path, found, header)
            elif self.done and not finished and not overwrite:
                raise Mistake(
                    f"{folder} holds a run that was not finished ({len(self.done)} photos): "
                    "--resume goes on with it, --overwrite begins again"
                )
            else:
                self.done, self._names = {}, set()
                self._begin = header
            for place in (folder, folder / "labels"):  # of a run that was killed while it wrote
                remove_leftovers(place)
        except BaseException:
            self._file.close()
            raise

    def free_name(self, title: str) -> str:
        """A name for the pictures of a photo, which no other photo of this run has."""
        name, number = title, 2
        while name.lower() in self._names:
            name, number = f"{title}_{number}", number + 1
        return name

    def add(self, photo: str, entry: Mapping[str, Any]) -> None:
        """Keep what was found in a photo; after this the end of the process loses nothing of it."""
        self._write({"photo": photo, **entry})
        self._know(photo, entry)

    def finish(self) -> None:
        """Say that all photos were gone through."""
        self._write({"finished": True})

    def close(self) -> None:
        """Let another run have the folder; one that came to no photo leaves what was there."""
        self._file.seek(0)
        if len(list(islice(self._file, 2))) < 2:
            self.path.unlink(missing_ok=True)
        self._file.close()

    def entries(self) -> Iterator[dict[str, Any]]:
        """What was found, in the order in which it was, one entry a photo that could be read."""
        with self.path.open("rb") as lines:
            next(lines)
            for line in lines:
                entry = json.loads(line)
                if "file" in entry:
                    yield entry

    def _know(self, photo: str, entry: Mapping[str, Any]) -> None:
        if "file" in entry:
            self.done[photo] = entry["file"]
            self._names.add(entry["file"].lower())

    def _write(self, entry: Mapping[str, Any]) -> None:
        if self._begin is not None:
            header, self._begin = self._begin, None
            self._file.truncate(0)
            self._write(header)
        self._file.seek(0, os.SEEK_END)
        self._file.write(json_text(entry).encode() + b"\n")
        self._file.flush()

    def _read(self) -> tuple[dict[str, Any] | None, bool]:
        """The first line, or None, and whether the run was finished; drops half a line."""
        self._file.seek(0)
        header, finished, end = None, False, 0
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
                if not isinstance(entry, dict):
                    raise ValueError("no object")
            except ValueError as error:
                raise Mistake(
                    f"{self.path}: line {number} is no line of a run ({error}); move the file "
                    "away, or give another --out"
                ) from error
            end += len(line)
            if header is None:
                header = entry
            else:
                self._know(entry.get("photo", ""), entry)
            finished = "finished" in entry
        self._file.truncate(end)
        return header, finished


def picture_folders(out: Path, formats: Iterable[str]) -> list[Path]:
    """Where pictures of some formats go, without links."""
    places = {"png": out, "labels": out / "labels"}
    return [places[name].resolve() for name in formats if name in places]


def json_text(value: Any) -> str:
    """A value as json in one line, which UTF-8 can take whatever bytes a file's name has."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a name that is no UTF-8, as Python reads it
        return json.dumps(value)
    return text


def _opened(folder: Path) -> BinaryIO:
    path = folder / NAME
    try:
        make_folder(folder)
        file = open(path, "a+b")  # noqa: SIM115  (held as long as the run)
    except OSError as error:
        where = f" ({error.filename})" if error.filename and error.filename != str(path) else ""
        raise Mistake(
            f"--out {folder} cannot be written: {error.strerror or error}{where}; give another "
            "folder"
        ) from error
    if lock(file) is False:
        file.close()
        raise Mistake(f"another run writes into {folder}; wait for it, or give another --out")
    return file


def _check_same(path: Path, found: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse to go on with what was asked for otherwise.

    Raises:
        Mistake: naming each option that differs.
    """
    keys = [key for key in {**found, **asked} if found.get(key) != asked.get(key)]
    if keys:
        changes = "; ".join(
            f"{key} was {_short(found.get(key))} and is {_short(asked.get(key))}" for key in keys
        )
        raise Mistake(
            f"--resume: {path.parent} was begun otherwise: {changes[:400]}; repeat the options, or "
            "give another --out"
        )


def _short(value: Any) -> str:
    text = "not given" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
