"""Measured tables as data: ``results/NAME.json``, written by the command that measured.

One file is one table::

    {"command": ..., "commit": ..., "machine": ..., "seeds": [...],
     "rows": [{"name": ..., "metrics": {"mIoU": 41.2, "seconds": {"mean": 9.1, "std": 0.2}}}]}

``command``, ``commit``, ``machine`` and ``seeds`` hold for every row that does not carry its own:
a file may be filled by several commands. The tables in README and docs are made from these files
(``tools/make_tables.py``).
"""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mmclipdis.utils.places import ROOT
from mmclipdis.utils.whole_files import write_text

PROVENANCE = ("command", "commit", "machine", "seeds")
SPREAD = {"mean", "std"}


def write_results(
    path: str | Path,
    rows: Iterable[Mapping[str, Any]],
    *,
    command: str | None = None,
    seeds: Sequence[int] = (),
    merge: bool = False,
    device: str = "cpu",
) -> None:
    """Write a table, in one step: a reader sees the old file or the new one.

    Args:
        path: The json file; folders are made.
        rows: Each ``{"name": str, "metrics": {str: value}}``; a value is a finite number, a short
            text, or ``{"mean": number, "std": number}``.
        command: What was run; None for this process's own command line.
        seeds: Seeds of the runs behind the rows.
        merge: Keep the rows of an existing file, and where they came from; those with the name of
            a new row are replaced where they stand. Otherwise the file is replaced.
        device: Device that was measured; a GPU is named in ``machine``.

    Raises:
        ValueError: for a row without name or metrics, a name twice, a value that is no finite
            number, or an existing file of another layout.
    """
    path = Path(path)
    table: dict[str, Any] = {
        "command": command_line() if command is None else command,
        "commit": commit(),
        "machine": machine(device),
        "seeds": list(seeds),
    }
    new = {row["name"]: row for row in _check_rows([dict(row) for row in rows], "the new rows")}
    kept: list[dict[str, Any]] = []
    if merge and path.is_file():
        old = read_results(path)
        kept = [_own_provenance(row, old, table) for row in old["rows"]]
    known = {row["name"] for row in kept}
    merged = [new.get(row["name"], row) for row in kept]
    table["rows"] = merged + [row for name, row in new.items() if name not in known]
    write_text(path, json.dumps(table, indent=2, ensure_ascii=False) + "\n")


def read_results(path: str | Path) -> dict[str, Any]:
    """Read a table and check its layout.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a table as described above.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no results at {path}; run the command that measures them")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not json: {error}") from None
    missing = [key for key in (*PROVENANCE, "rows") if key not in table]
    if missing:
        raise ValueError(f"{path} lacks {missing}; a results file has {(*PROVENANCE, 'rows')}")
    _check_rows(table["rows"], str(path))
    return table  # type: ignore[no-any-return]


def command_line() -> str:
    """This process's command as it would be typed in the repository's root."""
    script = Path(sys.argv[0]).resolve()
    name = str(script.relative_to(ROOT)) if script.is_relative_to(ROOT) else script.name
    return shlex.join(["python", name, *sys.argv[1:]])


def commit() -> str:
    """Short hash of the code, with ``-dirty`` if tracked files differ from it.

    Measured tables and the pages made from them do not count as a difference. ``unknown`` outside
    a clone.
    """
    if _git("rev-parse", "--show-toplevel") != str(ROOT):
        return "unknown"
    tables = (":!results", ":!*.md")
    dirty = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *tables)
    return _git("rev-parse", "--short", "HEAD") + ("-dirty" if dirty else "")


def machine(device: str = "cpu") -> str:
    """What was measured on: processor, cores in use, GPU if ``device`` is one, PyTorch."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [f"{_processor()}, {cores} cores, {torch.get_num_threads()} threads"]
    if torch.device(device).type == "cuda":
        parts.append(torch.cuda.get_device_name(device))
    return ", ".join([*parts, f"torch {torch.__version__}"])


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError:  # no git here
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _own_provenance(
    row: Mapping[str, Any], old: Mapping[str, Any], new: Mapping[str, Any]
) -> dict[str, Any]:
    """``row`` of the table ``old``, with what it no longer shares with its table written in it."""
    facts = {key: row.get(key, old[key]) for key in PROVENANCE}
    own = {key: value for key, value in facts.items() if value != new[key]}
    return {"name": row["name"], "metrics": row["metrics"], **own}


def _check_rows(rows: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{where}: rows must be a list of at least one row")
    for row in rows:
        if not isinstance(row, dict) or not row.get("name") or not row.get("metrics"):
            raise ValueError(f"{where}: a row needs a name and metrics, got {row!r}")
        for metric, value in row["metrics"].items():
            _check_value(f"{where}: {row['name']}: {metric}", value)
    names = [row["name"] for row in rows]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{where}: rows named twice: {twice}")
    return rows


def _check_value(what: str, value: Any) -> None:
    if isinstance(value, str) and value:
        return
    if isinstance(value, dict) and set(value) != SPREAD:
        raise ValueError(f"{what}: a spread has the keys {sorted(SPREAD)}, got {sorted(value)}")
    for number in value.values() if isinstance(value, dict) else [value]:
        numeric = isinstance(number, (int, float)) and not isinstance(number, bool)
        if not numeric or not math.isfinite(number):
            raise ValueError(f"{what}: expected a finite number, a text or a spread, got {value!r}")
