"""``mmclipdis reproduce``: a published table, measured again."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from mmclipdis.commands.start import run
from mmclipdis.commands.usage import Mistake, count

EPILOG = """\b
Exit codes:
  0  every cell that was asked for has a number
  1  some have none; the table says why
  2  nothing could be run, or something is wrong with what was asked for

\b
Examples:
  mmclipdis reproduce --list
  mmclipdis reproduce clearclip/table2 --plan
  mmclipdis reproduce clearclip/table2 --data data/ --weights checkpoints/ --jobs 4
  mmclipdis reproduce clearclip/table2 --only "ClearCLIP*" --only "*|VOC20"
"""


def _complete(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from mmclipdis.apis.reproduction.tables import tables

    found = [table for table in tables() if table.name.startswith(incomplete)]
    return [CompletionItem(table.name, help=table.title) for table in found]


@click.command(epilog=EPILOG, short_help="Measure a published table again: METHOD/TABLE.")
@click.argument("table", required=False, shell_complete=_complete)
@click.option("--list", "listed", is_flag=True, help="List the tables and what they lack.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("data"),
    show_default=True,
    help="What data/ of the configs is.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    default=Path("checkpoints"),
    show_default=True,
    help="What checkpoints/ is; files of trained models are looked for by name.",
)
@click.option("--plan", is_flag=True, help="Say what would be run and what is missing, and stop.")
@click.option(
    "--only",
    multiple=True,
    metavar="PATTERN",
    help="Rows or columns, or 'ROW | COLUMN'; may be given more than once.",
)
@click.option("--again", is_flag=True, help="Measure again what another commit measured.")
@click.option("--jobs", type=count(), default=1, show_default=True, help="Cells at once.")
@click.option(
    "--launcher",
    type=click.Choice(["none", "pytorch"]),
    default="none",
    show_default=True,
    help="pytorch: several processes a cell, by torchrun.",
)
@click.option("--gpus", type=count(), help="Processes a cell with --launcher pytorch.")
@click.option(
    "--miniature",
    is_flag=True,
    help="Generated data and tiny random weights: shows that all runs; its numbers mean nothing.",
)
@click.option(
    "--work-dir",
    type=click.Path(path_type=Path),
    default=Path("work_dirs/reproduction"),
    show_default=True,
    help="Configs, logs and results of the cells; what is there is kept.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the tables.  [default: results/reproduction]",
)
def reproduce(table: str | None, listed: bool, **given: Any) -> int:
    """Measure TABLE again: each cell by its own config, beside the published number.

    It is said first what is there and what is missing, with the line that gets it. Cells that lack
    nothing are run, one process each; those that are done are kept, so that an interrupted run goes
    on when the command is given again. The table is printed, and written as json, Markdown and
    LaTeX. Without TABLE all are listed.
    """
    if (given["gpus"] is None) != (given["launcher"] == "none"):
        raise Mistake("--gpus and --launcher pytorch go together: give both, or neither")

    def work() -> int:
        from mmclipdis.apis.reproduction.places import Places
        from mmclipdis.apis.reproduction.plan import list_lines
        from mmclipdis.apis.reproduction.processes import Setup
        from mmclipdis.apis.reproduction.reproducing import Order, reproduce

        places = Places(given["data"], given["weights"], given["work_dir"])
        if table is None or listed:
            for line in list_lines(places):
                click.echo(line)
            return 0
        # an end by a scheduler is one for the tests that were started, too
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        setup = Setup(given["jobs"], given["launcher"], given["gpus"] or 1)
        order = Order(
            given["only"], given["plan"], given["again"], given["miniature"], given["out"]
        )
        return reproduce(
            table, places, setup, order, lambda line: click.echo(line, err=True), click.echo
        )

    return run(work)
