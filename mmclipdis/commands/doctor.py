"""``mmclipdis doctor``: what is installed, what is found, what is wrong."""

from __future__ import annotations

import click

EPILOG = """\b
Example:
  mmclipdis doctor --json > report.json
"""


@click.command(short_help="Tell what is installed, and what is wrong.", epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for machines.")
def doctor(as_json: bool) -> int:
    """Tell what is installed, which mm packages, ops, caches, weights and data sets are found.

    And each known trouble with its remedy. Exit code 1 if a trouble stops mmclipdis.
    """
    from mmclipdis.doctor.__main__ import report

    return report(as_json)
