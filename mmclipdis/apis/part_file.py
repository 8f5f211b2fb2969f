"""A file that grows with every image that is finished, from which a broken run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmclipdis.utils.whole_files import make_folder, whole_file


class PartFile:
    """Finished records of a run, a line of json each, behind a line with the run's options.

    A record that was being written when the run was killed is done again.

    Args:
        path: Of the file. If it is there, the run goes on from it.
        options: That the records depend on; plain values.
        overwrite: Begin anew if the file was made with other options.

    Raises:
        FileExistsError: it was made with other options, or is another file altogether.
    """

    def __init__(self, path: Path, options: Mapping[str, Any], overwrite: bool) -> None:
        self.path, self.options = path, json.loads(json.dumps(options))
        self.records: dict[Any, dict[str, Any]] = {}
        end = self._read(overwrite) if path.exists() else 0
        if not end:
            with whole_file(path) as file:
                file.write(self._line({"options": self.options}))
        make_folder(path.parent)
        self._file = open(path, "r+b")  # noqa: SIM115  (closed by remove() or close())
        self._file.seek(0, 2)
        if end:
            self._file.truncate(end)
            self._file.seek(end)

    def _read(self, overwrite: bool) -> int:
        """Take the records over; the number of bytes that hold them, 0 to begin anew."""
        lines = self.path.read_bytes().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        try:
            head = json.loads(whole[0])["options"] if whole else None
            records = [json.loads(line) for line in whole[1:]]
            self.records = {record["image_id"]: record for record in records}
        except (KeyError, TypeError, ValueError):
            head = None
        if head == self.options:
            return sum(map(len, whole))
        self.records = {}
        if overwrite:
            return 0
        known = head if isinstance(head, dict) else {}
        other = [name for name, value in self.options.items() if known.get(name) != value]
        raise FileExistsError(
            f"{str(self.path)!r} holds what an earlier run finished with other options "
            f"({', '.join(other)}): take those again, give --overwrite to begin anew, or name "
            "another file"
        )

    @staticmethod
    def _line(content: Mapping[str, Any]) -> bytes:
        return json.dumps(content).encode() + b"\n"

    def add(self, records: Iterable[dict[str, Any]]) -> None:
        """Write finished records, each with its ``image_id``."""
        for record in records:
            self.records[record["image_id"]] = record
            self._file.write(self._line(record))
        self._file.flush()

    def close(self) -> None:
        """Leave the file for the next run."""
        self._file.close()

    def remove(self) -> None:
        """Delete the file: its records are elsewhere."""
        self.close()
        self.path.unlink(missing_ok=True)
