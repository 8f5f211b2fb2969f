"""A published table measured again, from the plan to the files: ``mmclipdis reproduce``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmengine.config import Config

from mmclipdis.apis.reproduction.cells import Cell, Table
from mmclipdis.apis.reproduction.miniature import LABEL, miniature
from mmclipdis.apis.reproduction.needs import Look, Needs
from mmclipdis.apis.reproduction.places import Places
from mmclipdis.apis.reproduction.plan import plan_lines, select_cells
from mmclipdis.apis.reproduction.processes import Pool, Setup
from mmclipdis.apis.reproduction.report import as_text, write_reports
from mmclipdis.apis.reproduction.running import Outcome, Runner
from mmclipdis.apis.reproduction.tables import find_table
from mmclipdis.utils import locks
from mmclipdis.utils.places import RESULTS
from mmclipdis.utils.whole_files import make_folder

#: All cells were measured; some failed or lack something.
DONE, PARTLY = 0, 1


@dataclass(frozen=True)
class Order:
    """What is asked for.

    Attributes:
        only: patterns of rows, columns or ``ROW | COLUMN``; none for the whole table.
        plan: say what would be run, and stop.
        again: measure again what another commit measured.
        miniature: of generated data and random weights, to see that all of it runs.
        out: where the tables go; below ``results/reproduction`` if not given.
    """

    only: tuple[str, ...] = ()
    plan: bool = False
    again: bool = False
    miniature: bool = False
    out: Path | None = None


def reproduce(
    name: str,
    places: Places,
    setup: Setup,
    order: Order,
    say: Callable[[str], None] = print,
    tell: Callable[[str], None] = print,
) -> int:
    """Measure a published table again.

    Args:
        name: Of the table, ``METHOD/WORD``.
        places: Where data and weights lie, and where the work goes.
        setup: How processes are started.
        order: What is asked for.
        say: Takes the plan, and a line for each cell that is done.
        tell: Takes the table.

    Returns:
        0: every cell that was asked for has a number. 1: some have none.

    Raises:
        ValueError: there is no such table or cell, it is wrong, or another run works on it.
        FileNotFoundError: nothing that it needs is here.
    """
    table = find_table(name)
    cells = select_cells(table, order.only)
    if order.miniature:
        places = replace(places, work=places.work / "miniature")
    needs = _needs(cells, places, order.miniature)
    for line in plan_lines(table, cells, needs):
        say(line)
    ready = [cell for cell in cells if not needs[cell.name].missing]
    if order.plan:
        return DONE if len(ready) == len(cells) else PARTLY
    if not ready:
        raise FileNotFoundError(
            f"{name}: none of {len(cells)} cells can be run, since all lack data or weights; the "
            "lines above say what gets them (--data and --weights, if they lie elsewhere)"
        )
    folder = places.work / table.name
    make_folder(folder)
    with (folder / ".lock").open("a") as lock:
        if locks.lock(lock) is False:
            raise ValueError(f"another run measures {name} in {folder}; wait for it, or end it")
        shrink = _shrink if order.miniature else None
        runner = Runner(places, Pool(setup), order.again, shrink, say)
        measured = {outcome.cell.name: outcome for outcome in runner.run(ready, needs)}
        asked = [measured.get(cell.name) or _skipped(cell, needs[cell.name]) for cell in cells]
        label = LABEL if order.miniature else ""
        tell(as_text(table, asked, label))
        others = _with_others(table, asked, runner)
    for path in _written(table, others, order, places):
        say(f"wrote {path}")
    return DONE if all(one.result is not None for one in asked) else PARTLY


def _needs(cells: Sequence[Cell], places: Places, small: bool) -> dict[str, Needs]:
    """What cells need; a miniature makes all of it, trainings included."""
    if small:
        return {cell.name: Needs((), trains=cell.training is not None) for cell in cells}
    look = Look(places)
    return {cell.name: look.needs(cell) for cell in cells}


def _shrink(config: Config, folder: Path, trains: bool) -> Path:
    return miniature(config, folder, training=trains)


def _skipped(cell: Cell, needs: Needs) -> Outcome:
    return Outcome(cell, problem=f"missing: {'; '.join(needs.missing)}")


def _with_others(table: Table, asked: Sequence[Outcome], runner: Runner) -> list[Outcome]:
    """What was asked for, and what earlier runs measured of the rest of the table."""
    found = {outcome.cell.name: outcome for outcome in asked}
    return [
        found.get(cell.name) or Outcome(cell, runner.measured_before(cell)) for cell in table.cells
    ]


def _written(table: Table, outcomes: Sequence[Outcome], order: Order, places: Places) -> list[Path]:
    """The files of the table; those of a miniature lie where it was made, unless said otherwise."""
    device = next((one.result.device for one in outcomes if one.result is not None), "cpu")
    if order.miniature:
        return write_reports(table, outcomes, order.out or places.work / "tables", LABEL, device)
    return write_reports(table, outcomes, order.out or RESULTS / "reproduction", device=device)
