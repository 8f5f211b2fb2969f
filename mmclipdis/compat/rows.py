"""Which mm packages are installed, and from which of the two rows that mmclipdis is tested with.

OpenMMLab's own packages are one row, those of its maintained fork the other: the same import names
under other names of distributions, and newer versions. This module needs the standard library
alone, so that it can be read where nothing else can.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import NamedTuple


class Package(NamedTuple):
    """What supplies one import name.

    Attributes:
        distributions: names that pip knows; the first is the one to install.
        minimum, below: the tested range of versions.
        exact: the version of constraints.txt and constraints-onedl.txt.
    """

    distributions: tuple[str, ...]
    minimum: str
    below: str
    exact: str

    @property
    def requirement(self) -> str:
        """What pip is told to install."""
        return f"'{self.distributions[0]}=={self.exact}'"

    @property
    def range(self) -> str:
        """The tested range, for people."""
        return f">={self.minimum},<{self.below}"


Row = Mapping[str, Package]
UPSTREAM: Row = {
    "mmengine": Package(("mmengine", "mmengine-lite"), "0.10.4", "0.11", "0.10.7"),
    "mmcv": Package(("mmcv-lite", "mmcv"), "2.0.1", "2.2", "2.1.0"),
    "mmseg": Package(("mmsegmentation",), "1.2.2", "1.3", "1.2.2"),
    "mmdet": Package(("mmdet",), "3.3.0", "3.4", "3.3.0"),
}
FORK: Row = {
    "mmengine": Package(("onedl-mmengine",), "0.10.12", "0.11", "0.10.12"),
    "mmcv": Package(("onedl-mmcv",), "2.3.6", "2.4", "2.3.6"),
    "mmseg": Package(("onedl-mmsegmentation",), "1.4.2", "1.5", "1.4.2"),
    "mmdet": Package(("onedl-mmdetection",), "3.5.1", "3.6", "3.5.1"),
}
ROWS: dict[str, Row] = {"upstream": UPSTREAM, "fork": FORK}


def version_of(distribution: str) -> str | None:
    """Version of an installed distribution; None when there is none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def installed(row: Row) -> dict[str, str]:
    """Distributions of a row that are installed, with their versions."""
    names = [name for package in row.values() for name in package.distributions]
    found = {name: version_of(name) for name in names}
    return {name: version for name, version in found.items() if version is not None}


def installed_rows() -> list[str]:
    """Names of the rows of which something is installed."""
    return [name for name, row in ROWS.items() if installed(row)]


def installed_row() -> Row:
    """The row to advise: the fork where only the fork is installed, or else upstream."""
    return FORK if installed_rows() == ["fork"] else UPSTREAM


def module_version(module: str) -> str | None:
    """Version of ``mmengine``, ``mmcv``, ``mmseg`` or ``mmdet``, without importing it.

    Of the module, where it is imported, or else of its distribution; None without either.
    """
    version = getattr(sys.modules.get(module), "__version__", None)
    if version is not None:
        return str(version)
    found = [version_of(name) for row in ROWS.values() for name in row[module].distributions]
    return next((version for version in found if version is not None), None)


def install_command(modules: Iterable[str], row: Row | None = None) -> str:
    """The command that installs packages of a row, by import name; of the installed row if None."""
    row = installed_row() if row is None else row
    return "pip install " + " ".join(row[module].requirement for module in modules)


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version: (2, 6) for ``2.6.0+cu124``; what follows them is left out."""
    match = re.match(r"\d+(\.\d+)*", version.strip())
    numbers = [int(number) for number in match[0].split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def within(version: str, minimum: str, below: str) -> bool:
    """Whether ``minimum <= version < below``."""
    return release(minimum) <= release(version) < release(below)
