"""A table of two rows and two columns for the tests, and tools that are only pretended to run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmclipdis.apis.reproduction.cells import Cell, Row, Table, Training
from mmclipdis.apis.reproduction.processes import Pool, Setup

MODEL = "clearclip_vitb16_voc20"
#: What CostHook would write.
MEASURED: dict[str, Any] = {
    "metrics": {"mIoU": 80.85, "aAcc": 90.0},
    "images": 4,
    "seconds": 0.25,
    "device": "cpu",
    "memory": 1000.0,
    "memory_of": "process",
    "parameters": 1234,
}


def cell(row: str, column: str, published: float = 80.9, **more: Any) -> Cell:
    numbers = {"mIoU": published}
    return Cell("toy/one", row, column, MODEL, numbers, {"mIoU": "A paper"}, **more)


def table(*cells: Cell, **more: Any) -> Table:
    names = dict.fromkeys(one.row for one in cells)
    rows = [Row(name, {one.column: one for one in cells if one.row == name}) for name in names]
    columns = {one.column: one.column for one in cells}
    known = {"gates": {"mIoU": 0.3}, **more}
    return Table("toy/one", "A paper", "A title", columns, {"mIoU": "mIoU"}, tuple(rows), **known)


class Pretended(Pool):
    """Notes what is started; a test writes what it measured, a training a checkpoint."""

    def __init__(self, jobs: int = 1, problems: Sequence[str | None] = ()) -> None:
        super().__init__(Setup(jobs))
        self.started: list[tuple[str, list[str]]] = []
        self.problems = list(problems)

    def run(self, tool: str, words: Sequence[str], log: Path) -> str | None:
        self.started.append((tool, list(words)))
        problem = self.problems.pop(0) if self.problems else None
        if problem is not None:
            return problem
        folder = Path(words[list(words).index("--work-dir") + 1])
        if tool == "test":
            (folder.parent / "measured.json").write_text(json.dumps(MEASURED))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            torch.save({"state_dict": {"a": torch.zeros(1)}}, folder / "iter_2.pth")
            (folder / "last_checkpoint").write_text(str(folder / "iter_2.pth"))
        return None


TRAINING = Training("catseg_vitb16_a150")
