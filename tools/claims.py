#!/usr/bin/env python
"""Claims of the papers on ShapeScenes: measures them, judges them, writes page and table.

python tools/claims.py                            # the verdicts of what has been measured
python tools/claims.py --only declip/blocks --run # measures what a claim needs, then judges it
python tools/claims.py --write                    # measures everything that lacks, and writes
python tools/claims.py --write --judge            # writes what has been measured, runs nothing

Written are results/claims.json and docs/claims.md; `make tables` does the README's table. Runs that
stand in the table are not repeated; those in the work folder are read from there. All of it takes
hours on 2 cores; --only is for parts.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path

from mmclipdis.apis.claims.measuring import RUN, Places, kept_runs, measure
from mmclipdis.apis.claims.page import as_rows, judged, page, paper_rows
from mmclipdis.apis.claims.sheet import Sheet, sheet
from mmclipdis.apis.cli import run
from mmclipdis.engine.results import write_results
from mmclipdis.utils.places import RESULTS, ROOT
from mmclipdis.utils.whole_files import write_text

OUT = RESULTS / "claims.json"
PAGE = ROOT / "docs" / "claims.md"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what lacks, print the verdicts, and perhaps write them."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[1], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    known = sheet()
    parser.add_argument("--only", nargs="+", metavar="CLAIM", help="some claims; METHOD is all its")
    parser.add_argument("--run", action="store_true", help="measure what lacks; so does --write")
    parser.add_argument("--judge", action="store_true", help="with --write: measure nothing")
    parser.add_argument("--write", action="store_true", help=f"write {OUT.name} and {PAGE.name}")
    parser.add_argument("--data", type=Path, default=Path("data/shapes"), help="generated world")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs") / "claims")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args(arguments)
    if args.run and args.judge:
        parser.error("--judge runs nothing: leave out --run")
    names = chosen(args.only, known, parser)
    if (args.run or args.write) and not args.judge:
        measure_all(args, names, known)
    if args.write:
        found = judged(known, OUT, known.claims)
        rows = [*paper_rows(found, known), *as_rows(found)]
        write_results(OUT, rows, seeds=args.seeds, merge=True)
        write_text(PAGE, page(found, known, OUT))
    for one in judged(known, OUT, names):
        print(f"{one.claim.name}: {one.verdict.value}")


def chosen(only: Sequence[str] | None, known: Sheet, parser: argparse.ArgumentParser) -> list[str]:
    """Names of the claims that are asked for; all of them without ``only``."""
    found: list[str] = []
    for word in only or known.claims:
        names = [name for name in known.claims if word in (name, name.partition("/")[0])]
        if not names:
            near = difflib.get_close_matches(word, known.claims, n=2, cutoff=0.6)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {[*known.claims]}"
            parser.error(f"--only: no claim {word!r}; {hint}")
        found += names
    return list(dict.fromkeys(found))


def measure_all(args: argparse.Namespace, names: Sequence[str], known: Sheet) -> None:
    """Measure the rows of these claims that the table lacks, and note each there at once."""
    places = Places(args.data, args.work_dir)
    for name in names:
        claim = known.claims[name]
        if claim.experiment is None:
            continue
        experiment = known.experiments[claim.experiment]
        for seed in filter(experiment.has, args.seeds):
            for row in claim.rows:
                kept = kept_runs(OUT, experiment).get(row, {})
                if all(seed in kept[m].runs for m in kept) and set(claim.metrics) <= set(kept):
                    continue
                metrics = measure(experiment, row, seed, places, known.worlds)
                title = RUN.format(experiment=experiment.name, row=row, seed=seed)
                print(title, metrics, flush=True)
                if args.write:
                    rows = [{"name": title, "metrics": metrics}]
                    write_results(OUT, rows, seeds=[seed], merge=True)


if __name__ == "__main__":
    run(main, None)
