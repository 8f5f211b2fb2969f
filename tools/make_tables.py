"""Writes the tables of README.md, CONTRIBUTING.md and docs from results/*.json and the metafiles.

    python tools/make_tables.py            # write them
    python tools/make_tables.py --check    # exit 1 if a page and the results have drifted apart

A table stands between two comments, each on a line of its own::

    <!-- table: results/benchmarks.json measured target rows="last block*" title=Claim -->
    <!-- /table -->

After the file come the metrics wanted as columns, in that order; without any, all of them. Options:
``rows=`` patterns (``*`` and ``?``) of row names, separated by ``|``; ``title=`` head of the first
column. A row that has none of the columns is left out.

``<!-- table: zoo segment -->`` is the list of models of a task that have short names, from the
metafiles; ``zoo segment results`` all of the task with their published results.

``<!-- table: published declip/table7 -->`` is a table of ``configs/*/tables.yml`` with the numbers
of the metafiles; of several with the same columns, one below the other. ``rows=`` and ``title=`` as
above, ``sources`` adds whose numbers a row has.
"""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from mmclipdis.apis.reproduction import Row, find_table
from mmclipdis.apis.zoo import as_table, models
from mmclipdis.engine.results import read_results
from mmclipdis.utils.whole_files import write_text

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = ("rows", "title")
OPEN = re.compile(r"^<!-- table: (?P<spec>.+?) -->$")
CLOSE = "<!-- /table -->"

#: End (or start) of a metric's name -> its unit in the head of a column, its number format.
FORMATS: tuple[tuple[str, str, str], ...] = (
    (r"_per_second$", "/s", "significant"),
    (r"(^|_)seconds$", "s", "seconds"),
    (r"_ms$", "ms", "significant"),
    (r"_mb$", "MB", ",.0f"),
    (r"_percent$", "%", ".1f"),
    (r"^mean_cosine", "", ".2f"),
    (r"^(mIoU|mAP|AP|mAcc|aAcc|auc|box_|mask_)", "", ".1f"),
)


def head(metric: str) -> str:
    """Head of the column of ``metric``: ``peak_mb`` is "peak (MB)", ``mIoU_base`` "mIoU base"."""
    for pattern, unit, _ in FORMATS:
        if re.search(pattern, metric):
            word = metric if pattern.startswith("^") else re.sub(pattern, "", metric)
            text = word.replace("_", " ")
            if not unit:
                return text
            if unit.startswith("/"):
                return f"{text} {unit}"
            return f"{text} ({unit})" if text else metric.strip("_")
    return metric.replace("_", " ")


def number(metric: str, value: Any) -> str:
    """``value`` as it stands in a cell: a text, a number, or mean ± spread; "-" for None."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    style = next((style for pattern, _, style in FORMATS if re.search(pattern, metric)), "")
    if isinstance(value, Mapping):
        return f"{_format(value['mean'], style)} ± {_format(value['std'], style)}"
    return _format(value, style)


def _format(value: float, style: str) -> str:
    if isinstance(value, int) and style in ("", "significant"):
        return f"{value:,}"
    if style == "seconds":
        style = ".1f" if value >= 1 else ".2g"
    if style and style != "significant":
        return f"{value:{style}}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = f"{value:#.3g}"  # three significant digits, trailing zeros too
    return digits.rstrip(".") if "e" not in digits else f"{value:.3g}"


def make_table(spec: str, root: Path) -> list[str]:
    """Lines of the Markdown table that a marker's ``spec`` asks for.

    Raises:
        FileNotFoundError: for a results file that does not exist.
        ValueError: for an unknown option or metric, or a pattern that fits no row.
    """
    if spec.startswith("zoo "):
        return _zoo(spec.split()[1:])
    if spec.startswith("published "):
        return _published(spec)
    path, columns, options = _parse(spec)
    rows = read_results(root / path)["rows"]
    wanted = _fitting([row["name"] for row in rows], options, path)
    rows = [row for row in rows if row["name"] in wanted]
    known = list(dict.fromkeys(metric for row in rows for metric in row["metrics"]))
    unknown = [column for column in columns if column not in known]
    if unknown:
        raise ValueError(f"no row of {path} has the metrics {unknown}; there are {known}")
    columns = columns or known
    rows = [row for row in rows if any(column in row["metrics"] for column in columns)]
    lines = [[options.get("title", ""), *(head(column) for column in columns)]]
    lines.append(["---", *["---:"] * len(columns)])
    for row in rows:
        cells = (number(column, row["metrics"].get(column)) for column in columns)
        lines.append([row["name"], *cells])
    return _markdown(lines)


def _markdown(lines: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _fitting(names: Sequence[str], options: Mapping[str, str], where: str) -> set[str]:
    """The names that the option ``rows`` asks for."""
    patterns = options.get("rows", "*").split("|")
    unfit = [p for p in patterns if not any(fnmatchcase(name, p) for name in names)]
    if unfit:
        raise ValueError(f"no row of {where} fits {unfit}; there are {list(names)}")
    return {name for name in names if any(fnmatchcase(name, p) for p in patterns)}


def _published(spec: str) -> list[str]:
    """Lines of published tables, one below the other."""
    _, words, options = _parse(spec)
    found = [find_table(word) for word in words if word != "sources"]
    if len({(tuple(one.columns), tuple(one.metrics)) for one in found}) != 1:
        raise ValueError(f"{spec!r} names no table, or tables of other columns")
    first, sources = found[0], "sources" in words
    rows = [row for table in found for row in table.rows]
    wanted = _fitting([row.name for row in rows], options, " ".join(words))
    rows = [row for row in rows if row.name in wanted]
    numbers = [dict(_numbers(row)) for row in rows]
    known = [
        pair
        for pair in product(first.columns, first.metrics)
        if any(pair in of_row for of_row in numbers)
    ]
    single = len(first.metrics) == 1, len({column for column, _ in known}) == 1
    heads = [c if single[0] else m if single[1] else f"{c} {m}" for c, m in known]
    average = first.average and len(known) > 1
    lines = [[options.get("title", ""), *heads, *["average"] * average, *["source"] * sources]]
    lines.append(["---", *["---:"] * (len(heads) + average), *["---"] * sources])
    for row, of_row in zip(rows, numbers, strict=True):
        values = [of_row.get(pair) for pair in known]
        cells = ["" if value is None else _plain(value) for value in values]
        if average:
            full = [value for value in values if value is not None]
            cells.append(f"{mean(full):.1f}" if len(full) == len(values) else "")
        if sources:
            texts = (text for cell in row.cells.values() for text in cell.sources.values())
            cells.append("; ".join(dict.fromkeys(texts)))
        lines.append([row.name, *cells])
    return _markdown(lines)


def _numbers(row: Row) -> Iterator[tuple[tuple[str, str], float]]:
    for column, cell in row.cells.items():
        yield from (((column, metric), value) for metric, value in cell.published.items())


def _plain(value: float) -> str:
    """As it was printed, with one decimal at least."""
    return f"{value:.1f}" if value == round(value, 1) else f"{value:g}"


def _zoo(words: Sequence[str]) -> list[str]:
    """Lines of a table of models: those of a task, ``results`` behind it for all of them."""
    task, *more = words
    if more not in ([], ["results"]):
        raise ValueError(f"unknown option(s) {more} behind zoo {task}; known: results")
    found = [info for info in models(task) if more or info.short]
    return as_table(found, markdown=True, results=bool(more)).splitlines()


def _parse(spec: str) -> tuple[str, list[str], dict[str, str]]:
    path, *words = shlex.split(spec)
    options = dict(word.split("=", 1) for word in words if "=" in word)
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise ValueError(f"unknown option(s) {unknown} in the marker {spec!r}; known: {OPTIONS}")
    return path, [word for word in words if "=" not in word], options


def fill(text: str, root: Path, name: str) -> str:
    """``text`` of the page ``name`` with every table made anew; the rest is not touched.

    Raises:
        FileNotFoundError, ValueError: with page and line of the marker that cannot be served.
    """
    lines = text.splitlines()
    out: list[str] = []
    index = 0
    while index < len(lines):
        out.append(lines[index])
        match = OPEN.match(lines[index])
        index += 1
        where = f"{name}:{index}"
        if match is None:
            if out[-1] == CLOSE:
                raise ValueError(f"{where}: {CLOSE} without a table; is its first line misspelt?")
            continue
        if CLOSE not in lines[index:]:
            raise ValueError(f"{where}: table without {CLOSE}")
        end = lines.index(CLOSE, index)
        if any(OPEN.match(line) for line in lines[index:end]):
            raise ValueError(f"{where}: table without {CLOSE} before the next one")
        try:
            table = make_table(match["spec"], root)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"{where}: {error}") from None
        out += ["", *table, "", CLOSE]
        index = end + 1
    return "\n".join(out) + ("\n" if text.endswith("\n") else "")


def pages(root: Path) -> list[Path]:
    """README.md, CONTRIBUTING.md and the pages in docs, as far as they exist."""
    top = [root / name for name in ("README.md", "CONTRIBUTING.md")]
    return [page for page in top if page.is_file()] + sorted((root / "docs").glob("**/*.md"))


def drift(root: Path, write: bool) -> list[str]:
    """Differences between pages and results, as lines of a diff; mended if ``write``."""
    differences: list[str] = []
    for page in pages(root):
        name = str(page.relative_to(root))
        old = page.read_text(encoding="utf-8")
        new = fill(old, root, name)
        if new == old:
            continue
        options: dict[str, Any] = {"lineterm": "", "n": 0}
        differences += difflib.unified_diff(
            old.splitlines(), new.splitlines(), name, f"{name} from results", **options
        )
        if write:
            write_text(page, new)
    return differences


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 on drift")
    parser.add_argument("--root", type=Path, default=ROOT, help="repository")
    args = parser.parse_args(arguments)
    try:
        differences = drift(args.root, write=not args.check)
    except (OSError, ValueError) as error:
        print(f"tables: {error}", file=sys.stderr)
        return 1
    if args.check and differences:
        print("\n".join(differences))
        print("tables and results/*.json have drifted apart; run `make tables`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
