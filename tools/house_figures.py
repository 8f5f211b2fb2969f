"""Measures the house's own figures: docstrings, return types, lengths of files and functions.

    python tools/house_figures.py            # print them, and what is longer than the house likes
    python tools/house_figures.py --check    # exit 1 if a public function lacks what it must have
    python tools/house_figures.py --write    # keep them in results/house_figures.json

`make tables` brings the kept figures into CONTRIBUTING.md. ``LIMITS`` hold at every commit. The
kept figures may lag behind the code by a tenth, so that hardly any commit has to write them anew
and two branches seldom meet in that file; names of what is longest are printed and not kept.

Public is a function or method without a leading underscore in its name, nor in that of its class,
its module or a folder above, and not defined inside a function. Overridden methods such as
``forward`` count.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from statistics import median, quantiles

from mmclipdis.engine.results import read_results, write_results

ROOT = Path(__file__).resolve().parents[1]
KEPT = Path("results/house_figures.json")
#: Folder of each row; the first is what the limits are for.
FOLDERS = ("mmclipdis", "tools", "tests")
#: What the package must reach, in percent of its public functions.
LIMITS = {"docstrings_percent": 98.0, "return_types_percent": 100.0}
#: Lines that a file and a function should not pass.
LONG_FILE, LONG_FUNCTION = 300, 60
#: By how much a kept figure may differ from the code: this share of it, a count at least so much.
SLACK, SLACK_COUNT = 0.1, 3

Function = ast.FunctionDef | ast.AsyncFunctionDef
Figures = dict[str, float]


@dataclass(frozen=True)
class Definition:
    """A function or method, and where it stands."""

    node: Function
    name: str  # path/of/file.py: Class.method
    public: bool

    @property
    def lines(self) -> int:
        """Lines from ``def`` to the last one, without decorators."""
        return (self.node.end_lineno or self.node.lineno) - self.node.lineno + 1

    @property
    def documented(self) -> bool:
        """Whether it has a docstring."""
        return ast.get_docstring(self.node) is not None

    @property
    def typed(self) -> bool:
        """Whether its return type is written."""
        return self.node.returns is not None


def definitions(source: str, path: str) -> list[Definition]:
    """Every function of a module, methods and nested functions among them.

    Args:
        source: Its text.
        path: Its path in the repository, ``mmclipdis/clip/towers/rotary.py``.
    """
    parts = Path(path.removesuffix("/__init__.py")).parts
    public = not any(part.startswith("_") for part in parts)
    return list(_walk(ast.parse(source), path, "", public))


def _walk(parent: ast.AST, path: str, prefix: str, public: bool) -> Iterator[Definition]:
    for node in ast.iter_child_nodes(parent):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield from _walk(node, path, prefix, public)  # under an if, for or try
            continue
        name = f"{prefix}{node.name}"
        seen = public and not node.name.startswith("_")
        if isinstance(node, ast.ClassDef):
            yield from _walk(node, path, f"{name}.", seen)
        else:
            yield Definition(node, f"{path}: {name}", seen)
            yield from _walk(node, path, f"{name}.", False)


@dataclass(frozen=True)
class Room:
    """The Python files of a folder: lines of each, and all their functions."""

    lengths: Mapping[str, int]
    functions: Sequence[Definition]

    @classmethod
    def read(cls, root: Path, folder: str) -> Room:
        """Read ``root/folder``.

        Raises:
            FileNotFoundError: if it has no Python file.
        """
        texts = {
            path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
            for path in sorted((root / folder).rglob("*.py"))
        }
        if not texts:
            raise FileNotFoundError(
                f"no Python files in {root / folder}; is --root the repository?"
            )
        return cls(
            {path: len(text.splitlines()) for path, text in texts.items()},
            [f for path, text in texts.items() for f in definitions(text, path)],
        )

    @property
    def public(self) -> list[Definition]:
        """What a user may call."""
        return [function for function in self.functions if function.public]

    def lacking(self, metric: str) -> list[str]:
        """Names of the public functions that lack what ``metric``, a key of ``LIMITS``, counts."""
        has = {"docstrings_percent": "documented", "return_types_percent": "typed"}[metric]
        return [function.name for function in self.public if not getattr(function, has)]

    def figures(self) -> Figures:
        """The row of this room, but for the comparison with other rooms."""
        lengths = sorted(self.lengths.values())
        return {
            "docstrings_percent": _share([f.documented for f in self.public]),
            "return_types_percent": _share([f.typed for f in self.public]),
            "files": len(lengths),
            "median_lines": round(median(lengths)),
            "p90_lines": round(
                quantiles(lengths, n=10, method="inclusive")[-1] if len(lengths) > 1 else lengths[0]
            ),
            "longest_function": max((f.lines for f in self.functions), default=0),
            f"files_over_{LONG_FILE}": sum(length > LONG_FILE for length in lengths),
            f"functions_over_{LONG_FUNCTION}": len(self.long_functions()),
        }

    def long_functions(self) -> list[Definition]:
        """Functions longer than the house likes, the longest first."""
        long = [function for function in self.functions if function.lines > LONG_FUNCTION]
        return sorted(long, key=lambda function: -function.lines)


def _share(have: Sequence[bool]) -> float:
    """Percent that have it, rounded down: 100.0 is all of them."""
    return floor(1000 * sum(have) / len(have)) / 10 if have else 100.0


def measure(root: Path) -> dict[str, Room]:
    """The rooms of the repository ``root``, by folder."""
    return {folder: Room.read(root, folder) for folder in FOLDERS}


def table(rooms: Mapping[str, Room]) -> dict[str, Figures]:
    """One row a folder; the package's says how many lines of tests there are to one of its own.

    Tests are named after what they prove and called by nobody: their row has no shares.
    """
    rows = {folder: room.figures() for folder, room in rooms.items()}
    lines = {folder: sum(room.lengths.values()) for folder, room in rooms.items()}
    rows["tests"] = {k: value for k, value in rows["tests"].items() if k not in LIMITS}
    rows["mmclipdis"]["test_lines_per_line"] = round(lines["tests"] / lines["mmclipdis"], 2)
    return rows


def faults(rooms: Mapping[str, Room]) -> list[str]:
    """What keeps the package below ``LIMITS``: a sentence each, with names."""
    package = rooms[FOLDERS[0]]
    row = package.figures()
    return [
        f"{metric}: {row[metric]} is below {limit}; lacking: {', '.join(package.lacking(metric))}"
        for metric, limit in LIMITS.items()
        if row[metric] < limit
    ]


def stale(kept: Mapping[str, Figures], now: Mapping[str, Figures]) -> list[str]:
    """Figures in ``kept`` that the code has left behind, by more than the slack."""
    if {room: set(row) for room, row in kept.items()} != {
        room: set(row) for room, row in now.items()
    }:
        return ["it has other rows or columns than are measured"]
    return [
        f"{room} {metric}: kept {old}, measured {now[room][metric]}"
        for room, row in kept.items()
        for metric, old in row.items()
        if abs(old - now[room][metric]) > max(SLACK * old, SLACK_COUNT * isinstance(old, int))
    ]


def read_kept(root: Path) -> dict[str, Figures]:
    """The figures of ``results/house_figures.json``.

    Raises:
        FileNotFoundError, ValueError: if there are none, or they are no table.
    """
    return {row["name"]: row["metrics"] for row in read_results(root / KEPT)["rows"]}


def report(rooms: Mapping[str, Room]) -> str:
    """The figures as text, and the names of long files and functions."""
    rows = table(rooms)
    lines = []
    for metric in rows[FOLDERS[0]]:
        cells = (f"{rows[folder].get(metric, '-'):>10}" for folder in FOLDERS)
        lines.append(f"{metric:22}" + "".join(cells))
    lines.insert(0, " " * 22 + "".join(f"{folder:>10}" for folder in FOLDERS))
    for room in rooms.values():
        long = {path: n for path, n in room.lengths.items() if n > LONG_FILE}
        lines += [f"{n:5} lines  {path}" for path, n in sorted(long.items(), key=lambda x: -x[1])]
        lines += [f"{f.lines:5} lines  {f.name}" for f in room.long_functions()]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="exit 1 if a limit or a figure is off")
    parser.add_argument("--write", action="store_true", help=f"write {KEPT}")
    parser.add_argument("--root", type=Path, default=ROOT, help="repository")
    args = parser.parse_args(arguments)
    try:
        rooms = measure(args.root)
        if args.write:
            rows = [{"name": name, "metrics": row} for name, row in table(rooms).items()]
            write_results(args.root / KEPT, rows)
        found = faults(rooms)
        if args.check:
            old = stale(read_kept(args.root), table(rooms))
            found += [f"{KEPT} is old, run --write: {text}" for text in old]
    except (FileNotFoundError, ValueError, SyntaxError) as error:
        print(f"house figures: {error}", file=sys.stderr)
        return 1
    print(report(rooms))
    if args.check and found:
        print("\n".join(f"house figures: {text}" for text in found), file=sys.stderr)
    return int(args.check and bool(found))


if __name__ == "__main__":
    sys.exit(main())
