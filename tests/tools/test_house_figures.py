"""The house keeps its limits, its table tells the truth, and the script counts what it says."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from tests.paths import ROOT


def load_tool():
    spec = importlib.util.spec_from_file_location("house_figures", ROOT / "tools/house_figures.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["house_figures"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


house = load_tool()

MODULE = '''
import os
if os.name:
    def under_an_if(): ...

class Public:
    """Documented."""

    def __init__(self): ...

    @property
    def forward(self) -> int:
        """Documented."""
        def nested(): ...

    def bare(self): ...

class _Private:
    def unseen(self): ...

async def waits() -> None: ...
def _hidden(): ...
'''


@pytest.fixture
def repo(tmp_path):
    """A repository of three folders; the first has four public functions, one with a docstring."""
    for folder in house.FOLDERS:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text('def f() -> int:\n    """Is."""\n    return 1\n')
    (tmp_path / "mmclipdis/a.py").write_text(MODULE)
    return tmp_path


@pytest.fixture(scope="module")
def measured():
    return house.measure(ROOT)


def test_the_package_keeps_the_limits_of_the_house(measured):
    assert house.faults(measured) == []


def test_the_kept_figures_are_those_of_the_code(measured):
    assert house.stale(house.read_kept(ROOT), house.table(measured)) == []


def test_public_is_what_a_user_can_reach(repo):
    package = house.measure(repo)["mmclipdis"]
    names = [function.name.removeprefix("mmclipdis/a.py: ") for function in package.public]
    assert names == ["under_an_if", "Public.forward", "Public.bare", "waits"]
    assert len(package.functions) == 8
    lacking = package.lacking("docstrings_percent")
    assert lacking == [
        f"mmclipdis/a.py: {name}" for name in ("under_an_if", "Public.bare", "waits")
    ]
    assert package.lacking("return_types_percent") == lacking[:2]


@pytest.mark.parametrize(
    ("path", "public"),
    [
        ("mmclipdis/__init__.py", True),
        ("mmclipdis/clip/__init__.py", True),
        ("mmclipdis/_own.py", False),
        ("mmclipdis/_own/__init__.py", False),
        ("mmclipdis/_own/a.py", False),
    ],
)
def test_a_path_with_an_underscore_is_private(path, public):
    (function,) = house.definitions("def f(): ...", path)
    assert function.public is public


def test_shares_lengths_and_counts(repo):
    body = "    pass\n"
    (repo / "mmclipdis/b.py").write_text("def _long():\n" + 80 * body + 300 * "\n")
    (repo / "mmclipdis/c.py").write_text("@cache\ndef _edge():\n" + 59 * body + "\n" * 239)
    rows = house.table(house.measure(repo))
    assert rows["mmclipdis"] == {
        "docstrings_percent": 25.0,
        "return_types_percent": 50.0,
        "files": 3,
        "median_lines": 300,
        "p90_lines": 365,
        "longest_function": 81,
        "files_over_300": 1,
        "functions_over_60": 1,
        "test_lines_per_line": round(3 / (len(MODULE.splitlines()) + 381 + 300), 2),
    }
    assert rows["tests"] == {
        "files": 1,
        "median_lines": 3,
        "p90_lines": 3,
        "longest_function": 3,
        "files_over_300": 0,
        "functions_over_60": 0,
    }


def test_all_but_one_of_many_is_not_all(repo):
    lines = ["def g() -> int: ..."] * 4999 + ["def g(): ..."]
    (repo / "mmclipdis/a.py").write_text("\n".join(lines))
    assert house.measure(repo)["mmclipdis"].figures()["return_types_percent"] == 99.9


def test_check_names_what_lacks_and_passes_when_it_is_there(repo, capsys):
    assert house.main(["--write", "--root", str(repo)]) == 0
    assert house.main(["--check", "--root", str(repo)]) == 1
    error = capsys.readouterr().err
    assert "docstrings_percent: 25.0 is below 98.0; lacking: mmclipdis/a.py: under_an_if" in error
    assert "return_types_percent: 50.0 is below 100.0" in error
    (repo / "mmclipdis/a.py").write_text((repo / "tools/a.py").read_text())
    assert house.main(["--write", "--check", "--root", str(repo)]) == 0


def test_kept_figures_may_lag_by_a_tenth_and_no_more():
    kept = {"mmclipdis": {"files": 100, "longest_function": 20, "test_lines_per_line": 1.0}}
    near = {"mmclipdis": {"files": 110, "longest_function": 17, "test_lines_per_line": 1.09}}
    assert house.stale(kept, near) == []
    far = {"mmclipdis": {"files": 111, "longest_function": 16, "test_lines_per_line": 0.89}}
    assert [text.split(":")[0] for text in house.stale(kept, far)] == [
        "mmclipdis files",
        "mmclipdis longest_function",
        "mmclipdis test_lines_per_line",
    ]
    assert house.stale(kept, {"mmclipdis": {"files": 100}}) != []


def test_without_a_repository_or_kept_figures_there_is_one_line(tmp_path, repo, capsys):
    assert house.main(["--root", str(tmp_path / "none")]) == 1
    assert "no Python files in" in capsys.readouterr().err
    assert house.main(["--check", "--root", str(repo)]) == 1
    assert "house_figures.json" in capsys.readouterr().err
