"""``mmclipdis doctor [--json]``, or ``python -m mmclipdis.doctor [--json]``."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Sequence

from mmclipdis.compat.trouble import Trouble
from mmclipdis.doctor.facts import Facts, collect
from mmclipdis.doctor.troubles import find_troubles

DESCRIPTION = """Tell what is installed, which mm packages, ops, caches, weights and data sets are
found, and each known trouble with its remedy. Exit code 1 if a trouble stops mmclipdis."""


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m mmclipdis.doctor``, which needs nothing but Python."""
    parser = argparse.ArgumentParser("python -m mmclipdis.doctor", description=DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="print one JSON object, for machines")
    return report(parser.parse_args(arguments).json)


def report(json_wanted: bool) -> int:
    """Print what is found; returns the exit code."""
    with contextlib.redirect_stdout(io.StringIO()):  # libraries greet when they are imported
        troubles, facts = find_troubles(), collect()
    stopped = any(trouble.stops for trouble in troubles)
    print(as_json(troubles, facts) if json_wanted else as_text(troubles, facts))
    return 1 if stopped else 0


def as_json(troubles: Sequence[Trouble], facts: dict[str, Facts]) -> str:
    """One object: ``ok``, ``troubles`` with what, remedy and stops, and ``facts`` by section."""
    listed = [
        {"what": trouble.what, "remedy": trouble.remedy, "stops": trouble.stops}
        for trouble in troubles
    ]
    stopped = any(trouble.stops for trouble in troubles)
    return json.dumps({"ok": not stopped, "troubles": listed, "facts": facts}, indent=2)


def as_text(troubles: Sequence[Trouble], facts: dict[str, Facts]) -> str:
    """The sections, one fact a line, and the troubles behind them, where one reads last."""
    lines = []
    for title, section in facts.items():
        lines.append(title)
        lines += [f"  {name}: {value}" for name, value in section.items()]
    lines.append("Troubles" if troubles else "No trouble found.")
    for trouble in troubles:
        lines.append(f"  {'stops: ' if trouble.stops else 'warning: '}{trouble}.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
