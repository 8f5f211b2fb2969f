"""``mmclipdis doctor``: what is installed, what is found, what is wrong."""

from __future__ import annotations

import click

from mmclipdis.doctor.__main__ import DESCRIPTION, report

EPILOG = """\b
Example:
  mmclipdis doctor --json > report.json
"""


@click.command(
    help=DESCRIPTION, short_help="What is installed, and what is wrong.", epilog=EPILOG
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for machines.")
def doctor(as_json: bool) -> int:
    """See :mod:`mmclipdis.doctor`."""
    return report(as_json)
