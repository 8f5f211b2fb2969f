"""Two rows of mm packages: which is installed, what is advised, which versions are tested."""

from __future__ import annotations

import re

import pytest

from mmclipdis.compat.rows import (
    FORK,
    ROWS,
    UPSTREAM,
    install_command,
    installed,
    installed_row,
    installed_rows,
    release,
    within,
)
from tests.distributions import FORK_VERSIONS, UPSTREAM_VERSIONS, Install
from tests.paths import ROOT


def test_the_installed_row_is_told_by_its_distributions(only: Install) -> None:
    only({})
    assert installed_rows() == [] and installed_row() is UPSTREAM
    only(FORK_VERSIONS)
    assert installed_rows() == ["fork"] and installed_row() is FORK
    assert installed(FORK) == FORK_VERSIONS and installed(UPSTREAM) == {}
    only({"mmdet": "3.3.0"})
    assert installed_rows() == ["upstream", "fork"]


def test_a_command_names_the_packages_of_the_row(only: Install) -> None:
    only(FORK_VERSIONS)
    assert install_command(["mmcv", "mmdet"]) == (
        "pip install 'onedl-mmcv==2.3.6' 'onedl-mmdetection==3.5.1'"
    )
    assert install_command(["mmcv"], UPSTREAM) == "pip install 'mmcv-lite==2.1.0'"


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("2.6.0+cu124", (2, 6)), ("0.10.8rc1", (0, 10, 8)), ("3.3.0", (3, 3)), ("main", ())],
)
def test_a_version_is_compared_by_its_numbers(version: str, numbers: tuple[int, ...]) -> None:
    assert release(version) == numbers


def test_a_range_has_its_lower_end_and_not_its_upper() -> None:
    assert within("2.0.0", "2.0", "2.2") and within("2.1.9+local", "2.0", "2.2")
    assert not within("2.2", "2.0", "2.2.0") and not within("1.10", "1.11", "2")


@pytest.mark.parametrize("name", ROWS)
def test_exact_versions_are_tested_and_those_of_the_constraints(name: str) -> None:
    file = {"upstream": "constraints.txt", "fork": "constraints-onedl.txt"}[name]
    pinned = dict(re.findall(r"(?m)^([\w-]+)==(\S+)$", (ROOT / file).read_text()))
    for module, package in ROWS[name].items():
        assert within(package.exact, package.minimum, package.below), module
        assert pinned[package.distributions[0]] == package.exact


def test_the_versions_of_the_tests_are_the_exact_ones() -> None:
    for row, versions in ((UPSTREAM, UPSTREAM_VERSIONS), (FORK, FORK_VERSIONS)):
        assert versions == {p.distributions[0]: p.exact for p in row.values()}
