"""A table beside what was published: for the terminal, as json, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from mmclipdis.apis.reproduction.cells import Table
from mmclipdis.apis.reproduction.kept import Result, code_state
from mmclipdis.apis.reproduction.running import Outcome
from mmclipdis.engine.results import write_results
from mmclipdis.utils.whole_files import make_folder, write_text

COLUMNS = (
    *("row", "column", "metric", "published", "measured", "difference"),
    *("s/image", "MB", "parameters", "note"),
)
#: How many of them are words, which stand left.
WORDS = 3
#: What a number is called that a table has and a test did not give.
ABSENT = "-"
_FAR = "differs by more than"


@dataclass(frozen=True)
class Line:
    """A metric of a cell: what was published, what was measured, and what is to be said of it.

    ``compared`` is False where the two have nothing to do with each other, in a miniature.
    """

    row: str
    column: str
    metric: str
    published: float | None
    measured: float | None
    result: Result | None
    note: str
    compared: bool = True

    @property
    def difference(self) -> float | None:
        """Measured minus published, in points; None if they are not compared."""
        if not self.compared or self.measured is None or self.published is None:
            return None
        return self.measured - self.published


def lines(table: Table, outcomes: Sequence[Outcome], label: str = "") -> list[Line]:
    """A line for each metric of each cell.

    Args:
        table: The table.
        outcomes: Of its cells.
        label: Of what the numbers are, where they are not those of the paper: then nothing is
            compared, and the label stands in every note.
    """
    return [line for outcome in outcomes for line in _lines(table, outcome, label)]


def _lines(table: Table, outcome: Outcome, label: str) -> Iterator[Line]:
    cell, result = outcome.cell, outcome.result
    # of what only a figure shows all metrics are measured, and none is compared
    for metric in cell.published or table.metrics:
        published = cell.published.get(metric)
        measured = None if result is None else value_of(result.metrics, table.metrics[metric])
        yield Line(
            cell.row,
            cell.column,
            metric,
            published,
            measured,
            result,
            _note(table, outcome, metric, published, measured, label),
            not label,
        )


def value_of(metrics: Mapping[str, float], name: str) -> float | None:
    """A metric of ``tools/test.py`` by its name; a prefix and ``_`` for blanks do as well."""
    plain = {_plain(key): value for key, value in metrics.items()}
    return metrics.get(name, plain.get(_plain(name)))


def _plain(name: str) -> str:
    return name.rpartition("/")[2].replace("_", " ").lower()


def _note(
    table: Table,
    outcome: Outcome,
    metric: str,
    published: float | None,
    measured: float | None,
    label: str,
) -> str:
    """What is to be said: not run and why, too far away and what may be the reason, other code."""
    if outcome.result is None:
        return outcome.problem or "not run"
    if measured is None:
        return f"the test gave no {table.metrics[metric]}, but {', '.join(outcome.result.metrics)}"
    notes = [label] if label else []
    # rounding must not decide: the numbers of papers have a digit or two
    far = published is not None and abs(measured - published) > table.gates[metric] + 1e-6
    if far and not label:
        notes.append(f"{_FAR} {table.gates[metric]:g}{_reasons(table)}")
    if outcome.result.commit != code_state():
        notes.append(f"measured by {outcome.result.commit}")
    return "; ".join(notes)


def _reasons(table: Table) -> str:
    if not table.reasons:
        return ""
    return f"; known reasons ({table.page}): {', '.join(table.reasons)}"


def as_text(table: Table, outcomes: Sequence[Outcome], label: str = "") -> str:
    """Aligned columns, with the mean of each row where the table has one."""
    rows = [COLUMNS, *map(_words, _with_means(table, lines(table, outcomes, label)))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            word.ljust(width) if place < WORDS or place == len(widths) - 1 else word.rjust(width)
            for place, (word, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def as_markdown(table: Table, outcomes: Sequence[Outcome], label: str = "") -> str:
    """A page: the table as the paper has it, ``measured (published)``, then every cell."""
    rule = ["---" if place < WORDS else "---:" for place in range(len(COLUMNS) - 1)] + ["---"]
    every = [COLUMNS, rule, *map(_words, _with_means(table, lines(table, outcomes, label)))]
    grid = _grid(table, outcomes, label)
    head = ["---", *["---:"] * (len(grid[0]) - 1)]
    parts = [
        f"# {table.name}: {table.title}",
        f"{table.paper}. Measured (published).{f' {label}.' if label else ''}",
        _piped([grid[0], head, *grid[1:]]),
        "Seconds an image are those of the model and its metric; MB is the most that was held, on "
        "a GPU by tensors, else by the process.",
        _piped(every),
    ]
    return "\n\n".join(parts) + "\n"


def as_latex(table: Table, outcomes: Sequence[Outcome], label: str = "") -> str:
    """The table as the paper has it, ``measured (published)``, for the package booktabs."""
    grid = [[_escaped(word) for word in row] for row in _grid(table, outcomes, label)]
    body = [" & ".join(row) + r" \\" for row in grid]
    said = f"{table.paper}: {table.title}. Measured (published).{f' {label}.' if label else ''}"
    return "\n".join(
        [
            f"% {said}",
            rf"\begin{{tabular}}{{l{'r' * (len(grid[0]) - 1)}}}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def write_reports(
    table: Table, outcomes: Sequence[Outcome], folder: Path, label: str = "", device: str = "cpu"
) -> list[Path]:
    """Write ``TABLE.json``, ``TABLE.md`` and ``TABLE.tex``; without any result nothing is written.

    Returns:
        The files.
    """
    rows = [_as_row(outcome, table, label) for outcome in outcomes if outcome.result is not None]
    if not rows:
        return []
    target = folder / table.name
    make_folder(target.parent)
    write_results(target.with_suffix(".json"), rows, device=device)
    write_text(target.with_suffix(".md"), as_markdown(table, outcomes, label))
    write_text(target.with_suffix(".tex"), as_latex(table, outcomes, label))
    return [target.with_suffix(suffix) for suffix in (".json", ".md", ".tex")]


def _as_row(outcome: Outcome, table: Table, label: str) -> dict[str, object]:
    """A row of the results file; what holds for it alone (commit, machine) stands in it."""
    result = outcome.result
    if result is None:
        raise ValueError(f"{outcome.cell.name} has no result")
    metrics: dict[str, float | str] = {}
    for line in _lines(table, outcome, label):
        if line.published is not None:
            metrics[f"{line.metric} published"] = line.published
        if line.measured is not None:
            metrics[line.metric] = round(line.measured, 4)
        if line.difference is not None:
            metrics[f"{line.metric} difference"] = round(line.difference, 4)
        if line.note:
            metrics[f"{line.metric} note"] = line.note
    metrics |= {
        "seconds an image": round(result.seconds, 6),
        "images": result.images,
        "MB": round(result.memory, 1),
        "MB of": result.memory_of,
        "parameters": result.parameters,
        "source": "; ".join(dict.fromkeys(outcome.cell.sources.values())),
    }
    if label:
        metrics["of"] = label
    own = {"commit": result.commit, "machine": result.machine}
    return {"name": outcome.cell.name, "metrics": metrics, **own}


def _with_means(table: Table, found: Sequence[Line]) -> Iterator[Line]:
    """The lines, and after each row the mean over its columns, if all of them are there."""
    for place, line in enumerate(found):
        yield line
        last = place + 1 == len(found) or found[place + 1].row != line.row
        if table.average and last:
            yield from _means(table, [one for one in found if one.row == line.row])


def _means(table: Table, row: Sequence[Line]) -> Iterator[Line]:
    for metric in table.metrics:
        of_metric = [line for line in row if line.metric == metric]
        if len(of_metric) < len(table.columns):
            continue
        published, measured = (
            _mean(line.published for line in of_metric),
            _mean(line.measured for line in of_metric),
        )
        yield Line(row[0].row, "mean", metric, published, measured, None, "")


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean; None where a value is not there."""
    known = list(values)
    there = [value for value in known if value is not None]
    return mean(there) if there and len(there) == len(known) else None


def _words(line: Line) -> tuple[str, ...]:
    result = line.result
    costs = (
        (f"{result.seconds:.3f}", f"{result.memory:.0f}", f"{result.parameters:,}")
        if result is not None
        else (ABSENT,) * 3
    )
    return (
        *(line.row, line.column, line.metric, _number(line.published)),
        *(_number(line.measured), _number(line.difference, "+"), *costs, line.note),
    )


def _grid(table: Table, outcomes: Sequence[Outcome], label: str) -> list[list[str]]:
    """The paper's own layout: a row a row, a column a data set and metric."""
    found = {
        (line.row, line.column, line.metric): line
        for line in _with_means(table, lines(table, outcomes, label))
    }
    columns = [*table.columns, *(["mean"] if table.average else [])]
    pairs = [(column, metric) for column in columns for metric in table.metrics]
    pairs = [pair for pair in pairs if any((row.name, *pair) in found for row in table.rows)]
    one = len(table.metrics) == 1
    head = ["", *(column if one else f"{column}, {metric}" for column, metric in pairs)]
    rows = list(dict.fromkeys(outcome.cell.row for outcome in outcomes))
    body = [[row, *(_pair(found.get((row, *pair))) for pair in pairs)] for row in rows]
    return [head, *body]


def _pair(line: Line | None) -> str:
    """``measured (published)``; a star where they differ by more than the gate."""
    if line is None:
        return ""
    far = "*" if _FAR in line.note else ""
    return f"{_number(line.measured)}{far} ({_number(line.published)})"


def _number(value: float | None, sign: str = "") -> str:
    return ABSENT if value is None else f"{value:{sign}.2f}"


def _piped(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(
        f"| {' | '.join(word.replace('|', chr(92) + '|') for word in row)} |" for row in rows
    )


def _escaped(text: str) -> str:
    for sign in "&%$#_{}":
        text = text.replace(sign, f"\\{sign}")
    return text
