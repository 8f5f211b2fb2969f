"""What was measured before: kept by what was asked for, with the commit that measured it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmclipdis.engine.results import commit, machine
from mmclipdis.utils.whole_files import write_text
from mmclipdis.version import __version__

DONE = "done.json"


@dataclass(frozen=True)
class Result:
    """What a test measured and what it cost.

    Attributes:
        metrics: all that ``tools/test.py`` gave.
        images, seconds, device, memory, memory_of, parameters: as
            :class:`mmclipdis.engine.cost_hook.CostHook` writes them.
        commit: of the code that measured it.
        machine: on what.
    """

    metrics: Mapping[str, float]
    images: int
    seconds: float
    device: str
    memory: float
    memory_of: str
    parameters: int
    commit: str
    machine: str


def code_state() -> str:
    """Which code measures: the commit, or the version of an installation."""
    found = commit()
    return f"mmclipdis {__version__}" if found == "unknown" else found


def kept(folder: Path, request: Mapping[str, Any]) -> Result | None:
    """What was measured in a folder for the same request; None: nothing was."""
    found = read_done(folder)
    if found is None or found.get("request") != request:
        return None
    try:
        return Result(**found["result"])
    except (KeyError, TypeError):  # of another version, or damaged
        return None


def last(folder: Path) -> Result | None:
    """What was measured in a folder last, whatever was asked for."""
    found = read_done(folder)
    return None if found is None else kept(folder, found.get("request", {}))


def keep(folder: Path, request: Mapping[str, Any], measured: Mapping[str, Any]) -> Result:
    """Note what was measured; after this a later run does not do it again.

    Args:
        folder: Of the cell.
        request: What was asked for.
        measured: What ``CostHook`` wrote.
    """
    result = Result(**measured, commit=code_state(), machine=machine(measured["device"]))
    content = {"request": request, "result": asdict(result)}
    write_text(folder / DONE, json.dumps(content, indent=2))
    return result


def read_done(folder: Path) -> dict[str, Any] | None:
    """The note of a folder; None where there is none, or none that can be read."""
    path = folder / DONE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
