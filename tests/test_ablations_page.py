"""The page of ablations: its configs are there, its options fit them, its tables exist."""

from __future__ import annotations

import re
import shlex

from tests.config_options import check_options
from tests.paths import ROOT
from tests.published_tables import tables

PAGE = ROOT / "docs/ablations.md"
COLUMNS = ["paper", "table", "what varies", "option", "here"]


def rows() -> list[list[str]]:
    """Cells of the rows of the page's table."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert found[0] == COLUMNS
    return found[2:]


def pieces() -> list[tuple[str, list[str]]]:
    """Config (a pattern) and options of every piece of a command line."""
    found = []
    for row in rows():
        for piece in re.findall(r"`([^`]+)`", row[3]):
            pattern, *words = shlex.split(piece, posix=False)
            paths = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))
            assert paths, pattern
            assert words[:1] in ([], ["--cfg-options"]), piece
            found += [(path, words[1:]) for path in paths]
    return found


def test_configs_of_the_page_take_the_options() -> None:
    for path, options in pieces():
        if options:
            check_options(path, options)


def test_every_row_says_what_and_where() -> None:
    known = {table["Name"] for _, table in tables()}
    for row in rows():
        assert len(row) == len(COLUMNS) and row[0] and row[2] and row[3]
        assert set(re.findall(r"`([^`]+)`", row[1])) <= known, row
        (here,) = re.findall(r"^no$|^`(results/\w+\.json)`$", row[4]) or [None]
        assert here is not None and (not here or (ROOT / here).is_file()), row


def test_every_table_of_an_ablation_is_on_the_page() -> None:
    """All of DeCLIP's, and those of parts, weights and losses; a benchmark is no ablation."""
    named = set(re.findall(r"`(\w+/[\w-]+)`", PAGE.read_text("utf-8")))
    wanted = {
        table["Name"]
        for folder, table in tables()
        if folder == "declip" or table["Name"].endswith(("ablation", "tuned", "mfi", "loss"))
    }
    assert wanted <= named
