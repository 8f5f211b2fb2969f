"""``docs/claims.md`` and the rows of ``results/claims.json``: made from the claims and the runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmclipdis.apis.claims.measuring import Table, commits_of, rows_of
from mmclipdis.apis.claims.sheet import Claim, Experiment, Quote, Sheet
from mmclipdis.apis.claims.verdict import Comparison, Measured, Verdict, judge

#: Name of a claim's row in results/claims.json.
CLAIM = "claim | {name}"
HEAD = """\
# Claims of the papers, tried in a small world

Does the idea do what it says? Each claim below is one that [ShapeScenes](shapes.md) can test: the
sentence in our words, the published numbers with their source, ours, and whether it holds here.
This page and `results/claims.json` are made by `python tools/claims.py --write` from
`configs/shapes/claims.yml`.

**The rule** was written down before the runs of this page; the tables of other pages that it reads
were there before. An order such as "A > B" compares two rows by one metric. It *holds* if the mean
of A's lead over B, of three seeds, exceeds the spread of the lead (one standard deviation), it
*does not hold* if it exceeds it the other way, and is *undecided* in between or with fewer than
three seeds. The lead is that of the same seed where single runs are kept; of tables that keep mean
and deviation alone it is the difference of the means, and the spread the root of the sum of both
squared deviations. A claim of several orders holds if all do, and does not hold if one does not.

**What it is worth.** The world has 12 things and 6 grounds, the tiny CLIP 4 blocks, and a training
takes minutes. A claim that holds here does what it is meant to do; one that does not hold here may
well hold on real data. Published numbers are of other data sets than ours: the order of rows can be
compared, and nothing else.
"""


@dataclass(frozen=True)
class Judged:
    """A claim with its rows, its verdict and the comparisons behind it."""

    claim: Claim
    rows: Table
    verdict: Verdict
    comparisons: Sequence[Comparison]


def judged(sheet: Sheet, path: Path, names: Iterable[str]) -> list[Judged]:
    """Verdicts of these claims from what is measured: results/claims.json and other tables."""
    found = []
    for name in names:
        claim = sheet.claims[name]
        if claim.unseen:
            found.append(Judged(claim, {}, Verdict.UNSEEN, ()))
            continue
        rows = rows_of(claim, sheet, path)
        found.append(Judged(claim, rows, *judge(claim.orders, rows)))
    return found


def paper_rows(claims: Sequence[Judged], sheet: Sheet) -> list[dict[str, object]]:
    """Papers as rows of a results file: what each claims, and how many claims came out how."""
    rows: list[dict[str, object]] = []
    for paper, line in sheet.papers.items():
        found = [one.verdict for one in claims if one.claim.paper == paper]
        counts = {verdict.value.replace(" ", "_"): found.count(verdict) for verdict in Verdict}
        rows.append({"name": paper, "metrics": {"claim": line, **counts}})
    return rows


def as_rows(claims: Iterable[Judged]) -> list[dict[str, object]]:
    """Verdicts as rows of a results file: each with its leads and spreads."""
    rows: list[dict[str, object]] = []
    for one in claims:
        metrics: dict[str, object] = {"verdict": one.verdict.value}
        for comparison in one.comparisons:
            if comparison.difference is not None:
                what = f"{comparison.metric}: {comparison.text}"
                metrics[what] = _spread(comparison)
        rows.append({"name": CLAIM.format(name=one.claim.name), "metrics": metrics})
    return rows


def _spread(comparison: Comparison) -> object:
    lead = round(float(comparison.difference or 0.0), 3)
    return lead if comparison.spread is None else {"mean": lead, "std": round(comparison.spread, 3)}


def page(claims: Sequence[Judged], sheet: Sheet, path: Path) -> str:
    """The whole of docs/claims.md; ``path`` is results/claims.json."""
    papers = dict.fromkeys(one.claim.paper for one in claims)
    groups = {paper: [one for one in claims if one.claim.paper == paper] for paper in papers}
    lines = [HEAD, *_summary([one for group in groups.values() for one in group]), ""]
    for paper, group in groups.items():
        lines += [f"## {paper}", ""]
        for one in group:
            lines += _section(one, sheet)
    about = [_about(experiment, path) for experiment in sheet.experiments.values()]
    lines += ["## What is measured", "", *about, ""]
    return "\n".join(lines).rstrip() + "\n"


def _summary(claims: Sequence[Judged]) -> list[str]:
    lines = ["| claim | paper | here |", "| --- | --- | --- |"]
    for one in claims:
        name = one.claim.name
        lines.append(f"| [{name}](#{_anchor(name)}) | {one.claim.paper} | {_word(one)} |")
    return lines


def _section(one: Judged, sheet: Sheet) -> list[str]:
    """A claim: sentence, verdict, table, orders, note, and how to measure it."""
    claim = one.claim
    lines = [f"### {claim.name}", "", claim.text, "", f"**{_word(one)}**", ""]
    if claim.rows or claim.published:
        lines += [*_table(claim, one.rows), ""]
    if claim.published:
        sources = dict.fromkeys(quote.source for quote in claim.published)
        lines += [f"Published: {'; '.join(sources)}.", ""]
    if one.comparisons:
        lines += [*map(_order, one.comparisons), ""]
    if claim.note:
        lines += [claim.note, ""]
    if claim.experiment is not None:
        lines += [f"    python tools/claims.py --only {claim.name} --write", ""]
    elif claim.results is not None:
        lines += [f"Ours: `{claim.results}`.", ""]
    return lines


def _word(one: Judged) -> str:
    """The verdict; how many orders hold if some do, the reason if nothing can be seen."""
    if one.verdict is Verdict.UNSEEN:
        return f"{one.verdict.value}, because {one.claim.unseen}"
    held = sum(comparison.verdict is Verdict.HOLDS for comparison in one.comparisons)
    if one.verdict is Verdict.HOLDS or not held:
        return one.verdict.value
    return f"{one.verdict.value}; {held} of its {len(one.comparisons)} orders {_do(held)}"


def _do(count: int) -> str:
    return "does" if count == 1 else "do"


def _order(comparison: Comparison) -> str:
    text = f"- {comparison.metric}: {comparison.text}: {comparison.verdict.value}"
    if comparison.difference is None:
        return text
    spread = "one run" if comparison.spread is None else f"± {_number(comparison.spread)}"
    return f"{text} ({comparison.difference:+.2f}, {spread})"


def _table(claim: Claim, rows: Table) -> list[str]:
    """Rows of ours and of the paper: published numbers first, then our metrics."""
    titles = list(dict.fromkeys(quote.what for quote in claim.published))
    names = list(dict.fromkeys([*claim.rows, *(quote.row for quote in claim.published)]))
    metrics = list(dict.fromkeys([*claim.metrics, *claim.shown]))
    head = ["", *(f"published {title}" for title in titles), *(f"{m} here" for m in metrics)]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name in names:
        quotes = [_quoted(claim.published, name, title) for title in titles]
        ours = [_cell(rows.get(name, {}).get(metric)) for metric in metrics]
        lines.append([name, *quotes, *ours])
    return ["| " + " | ".join(line) + " |" for line in lines]


def _quoted(quotes: Sequence[Quote], row: str, what: str) -> str:
    values = [quote.value for quote in quotes if (quote.row, quote.what) == (row, what)]
    return f"{values[0]:g}" if values else ""


def _cell(measured: Measured | None) -> str:
    if measured is None:
        return "-"
    runs = len(measured.runs)
    short = {1: " (1 seed)", 2: " (2 seeds)"}.get(runs, "")
    spread = "" if measured.std is None else f" ± {_number(measured.std)}"
    return f"{_number(measured.mean)}{spread}{short}"


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _about(experiment: Experiment, path: Path) -> str:
    """What an experiment does, and the commits that its runs are of: several may differ."""
    commits = commits_of(path, experiment)
    measured = (
        f"measured at {', '.join(f'`{one}`' for one in commits)}" if commits else "not run yet"
    )
    return f"- **{experiment.name}**: {' '.join(experiment.about.split())}; {measured}."


def _anchor(name: str) -> str:
    """What a heading's link is on the site and on a code host: ``clearclip/ffn``: clearclipffn."""
    return "".join(c for c in name.lower() if c.isalnum() or c in "-_")
