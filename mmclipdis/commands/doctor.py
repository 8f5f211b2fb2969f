"""``mmclipdis doctor``: what is installed, what is found, what is wrong."""

from __future__ import annotations

import sys

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

    code = report(as_json)
    sys.stdout.flush()  # a pipe whose reader has gone is told here, not when Python ends
    return code
