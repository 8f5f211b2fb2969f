"""What is seldom called is imported when it is called, and nothing else changes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmclipdis.commands import late as late_module
from mmclipdis.commands.late import late


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package ``slow_package`` with a module ``part`` that another one imports from."""
    folder = tmp_path / "slow_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "part.py").write_text("def double(x, by=2):\n    return by * x\nOTHER = 7\n")
    (tmp_path / "user_of_it.py").write_text(
        "import slow_package.part as part\nfrom slow_package.part import double\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = {*sys.modules}
    yield "slow_package"
    for name in {*sys.modules} - before:
        del sys.modules[name]


def test_a_function_imports_its_module_when_it_is_called(package: str) -> None:
    with late({package: (), f"{package}.part": ("double",)}):
        user = importlib.import_module("user_of_it")
    assert package not in sys.modules and f"{package}.part" not in sys.modules
    assert user.double(4) == 8 and user.double(4, by=3) == 12
    assert f"{package}.part" in sys.modules
    assert user.part.OTHER == 7 and user.part.double(1) == 2


def test_another_name_imports_the_module_at_once(package: str) -> None:
    with late({package: (), f"{package}.part": ()}):
        user = importlib.import_module("user_of_it")  # takes double
        assert sys.modules[f"{package}.part"].__file__
    assert user.double(4) == 8 and user.double.__module__ == f"{package}.part"


def test_what_is_imported_already_stays(package: str) -> None:
    part = importlib.import_module(f"{package}.part")
    with late({f"{package}.part": ("double",)}):
        assert sys.modules[f"{package}.part"] is part
    assert sys.modules[f"{package}.part"] is part


def test_functions_that_are_only_marked_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "marks.py").write_text("raise AssertionError('imported')\n")
    (tmp_path / "user_of_marks.py").write_text(
        "from marks import disable\n"
        "@disable\ndef one():\n    return 1\n"
        "@disable(recursive=False)\ndef two():\n    return 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(late_module.MARKS, "marks", ("disable",))
    try:
        with late({"marks": ("disable",)}):
            user = importlib.import_module("user_of_marks")
        assert (user.one(), user.two(), user.one.__module__) == (1, 2, "user_of_marks")
    finally:
        sys.modules.pop("user_of_marks", None)
