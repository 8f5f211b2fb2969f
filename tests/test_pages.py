"""Paths, links, functions and commands that the pages name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.paths import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    ROOT / ".github/PULL_REQUEST_TEMPLATE.md",
    *sorted((ROOT / "docs").glob("**/*.md")),
]
FOLDERS = "mmclipdis|tools|tests|configs|docs|results|.github"
#: A path from the root; it may have ``*`` and one ``{this,or,that}``.
PATH = re.compile(
    rf"(?<![\w./-])(?:{re.escape(FOLDERS).replace(chr(92) + '|', '|')})/[\w./*{{}},-]*"
)


def alternatives(path: str) -> list[str]:
    """``{a,b}/{c,d}.py`` is ``a/c.py``, ``a/d.py``, ``b/c.py`` and ``b/d.py``."""
    match = re.search(r"\{([^}]*)\}", path)
    if match is None:
        return [path]
    before, after = path[: match.start()], alternatives(path[match.end() :])
    return [before + word + rest for word in match[1].split(",") for rest in after]


def named_paths(text: str) -> list[str]:
    """Paths in backticks and in the commands of code blocks."""
    blocks = re.findall(r"(?ms)^```(?:bash|python)\n(.*?)^```", text)
    prose = re.sub(r"(?ms)^```.*?^```", "", text)
    code = [*re.findall(r"`([^`]+)`", prose), *blocks]
    return [path.rstrip(".,") for words in code for path in PATH.findall(words)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_on_the_pages_exist(page: Path) -> None:
    paths = [one for path in named_paths(page.read_text()) for one in alternatives(path)]
    assert [path for path in paths if not list(ROOT.glob(path.rstrip("/")))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_the_pages_exist(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_of_make_on_the_pages_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?m)^([a-z][\w-]*):", makefile))
    words = re.findall(r"(?m)(?:`|^)make((?: [a-z][\w-]*)+)", page.read_text())
    named = {target for some in words for target in some.split()}
    assert named - targets == set()


def test_targets_of_make_in_continuous_integration_exist() -> None:
    targets = set(re.findall(r"(?m)^([a-z][\w-]*):", (ROOT / "Makefile").read_text()))
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    named = set(re.findall(r"run: make ([\w-]+)", workflow))
    assert "test-fast" in named and named <= targets


def test_the_paths_of_a_page_are_found() -> None:
    text = (
        "See `mmclipdis/a.py`, `bash tools/x_{a,b}.sh --y z/tools/q`.\n```bash\nls docs/*.md\n```\n"
    )
    assert named_paths(text) == ["mmclipdis/a.py", "tools/x_{a,b}.sh", "docs/*.md"]
    assert alternatives("{a,b}/x_{c,d}.sh") == ["a/x_c.sh", "a/x_d.sh", "b/x_c.sh", "b/x_d.sh"]
    assert len(named_paths((ROOT / "CONTRIBUTING.md").read_text())) > 40


def test_the_way_of_an_image_leads_through_functions_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    way = text[text.index("### One image") : text.index("## Adding a method")]
    stops = re.findall(r"`([\w.]+)`\s+in\s+`(mmclipdis/[\w/]+\.py)`", way)
    assert len(stops) >= 10
    for name, path in stops:
        source = (ROOT / path).read_text()
        for part in name.split("."):
            assert re.search(rf"(?m)^ *(?:def|class) {part}\b", source), f"no {part} in {path}"


def test_the_tree_of_rooms_is_that_of_the_package() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    tree = text[text.index("## Where a thing lives") : text.index("`engine`, `evaluation` and")]
    floors: dict[str, list[str]] = {}
    for indent, name in re.findall(r"(?m)^( {2}| {4})(\w+)/ ", tree):
        if indent == "  ":
            floors[name] = []
        else:
            floors[list(floors)[-1]].append(name)

    def packages(folder: Path) -> set[str]:
        return {path.parent.name for path in folder.glob("*/__init__.py")}

    assert set(floors) == packages(ROOT / "mmclipdis")
    for floor, rooms in floors.items():
        assert set(rooms) == packages(ROOT / "mmclipdis" / floor), floor
