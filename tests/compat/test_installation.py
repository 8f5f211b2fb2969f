"""A wheel beside a clone is found, whichever of the two is imported."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from mmclipdis.compat import installation
from mmclipdis.compat.installation import PACKAGE, install_kind, installation_troubles
from tests.distributions import Install, write_metadata
from tests.paths import ROOT


@pytest.fixture(autouse=True)
def in_a_folder_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    script = str(tmp_path / "train.py")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", script, raising=False)


def lines() -> list[str]:
    return [str(trouble) for trouble in installation_troubles()]


def make_clone(folder: Path) -> Path:
    (folder / "mmclipdis").mkdir(parents=True)
    (folder / "mmclipdis" / "version.py").touch()
    return folder


def test_a_clone_that_is_not_installed_is_no_trouble(only: Install) -> None:
    only({})
    assert install_kind() == "clone" and lines() == []


def test_an_editable_install_of_this_clone_is_no_trouble(only: Install, tmp_path: Path) -> None:
    only({})
    write_metadata(tmp_path / "site", "mmclipdis", "0.1", url=ROOT.as_uri())
    assert install_kind() == "editable" and lines() == []


def test_a_wheel_beside_this_clone_is_named(only: Install, tmp_path: Path) -> None:
    site = only({"mmclipdis": "0.1"})
    (line,) = lines()
    assert f"mmclipdis is imported from {ROOT}, but is installed (wheel) in {site}; run:" in line
    assert f"pip install -e {ROOT} to use this clone" in line and "\n" not in line


def test_an_editable_install_of_another_clone_is_named(only: Install, tmp_path: Path) -> None:
    only({})
    write_metadata(tmp_path / "site", "mmclipdis", "0.1", url="file:///other%20place")
    (line,) = lines()
    assert "is installed (editable) in /other place;" in line


@pytest.mark.parametrize("where", ["folder", "script"])
def test_a_clone_beside_this_wheel_is_named(
    only: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """What is imported is installed, and a person works in a clone or runs its tools."""
    only({})
    write_metadata(tmp_path / "site", "mmclipdis", "0.1", url=ROOT.as_uri())
    clone = make_clone(tmp_path / "clone")
    if where == "folder":
        monkeypatch.chdir(clone)
    else:
        main = types.ModuleType("__main__")
        main.__file__ = str(clone / "tools" / "analysis_tools" / "flops.py")
        monkeypatch.setitem(sys.modules, "__main__", main)
    (line,) = lines()
    assert line.startswith(f"{clone} is a clone of mmclipdis, but what is imported is the one in")
    assert f"pip install -e {clone}" in line


def test_the_package_of_a_wheel_is_where_its_metadata_is(
    only: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = only({"mmclipdis": "0.1"})
    monkeypatch.setattr(installation, "PACKAGE", site / "mmclipdis")
    assert install_kind() == "wheel" and lines() == []
    assert PACKAGE == ROOT / "mmclipdis"
