"""Environments that are not there: metadata of distributions in a folder on ``sys.path``."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

import pytest

from mmclipdis.compat.rows import FORK, UPSTREAM

#: What a test sees beside the distributions it makes, which hides all others of these names.
HIDDEN = ("mm", "onedl-mm", "opencv-", "setuptools", "numpy", "ftfy", "regex")
Install = Callable[[Mapping[str, str]], Path]
Row = Callable[..., None]


def write_metadata(folder: Path, name: str, version: str, url: str | None = None) -> None:
    """Make a distribution that has metadata and nothing else; ``url`` makes it editable."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if url is not None:
        content = {"url": url, "dir_info": {"editable": True}}
        (info / "direct_url.json").write_text(json.dumps(content))


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Have the metadata tell of the given distributions, and of no others of mm and mmclipdis."""
    folder = tmp_path / "site"

    def install(versions: Mapping[str, str]) -> Path:
        for name, version in versions.items():
            write_metadata(folder, name, version)
        found = metadata.MetadataPathFinder.find_distributions

        def find(context: metadata.DistributionFinder.Context) -> list[metadata.Distribution]:
            name = (context.name or "").lower()
            place = [str(folder)] if name.startswith(HIDDEN) else context.path
            return list(found(metadata.DistributionFinder.Context(name=context.name, path=place)))

        monkeypatch.setattr(metadata.MetadataPathFinder, "find_distributions", find)
        return folder

    return install


@pytest.fixture
def row(only: Install, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """An environment with a row and changes to it, whose modules have the versions of the row."""

    def install(versions: Mapping[str, str], **modules: str) -> None:
        only(versions)
        for name in ("mmengine", "mmcv", "mmseg", "mmdet"):
            package = (FORK if "onedl-mmengine" in versions else UPSTREAM)[name]
            version = modules.get(name, package.exact)
            monkeypatch.setattr(importlib.import_module(name), "__version__", version)

    return install


UPSTREAM_VERSIONS = {
    "mmengine": "0.10.7",
    "mmcv-lite": "2.1.0",
    "mmsegmentation": "1.2.2",
    "mmdet": "3.3.0",
}
FORK_VERSIONS = {
    "onedl-mmengine": "0.10.12",
    "onedl-mmcv": "2.3.6",
    "onedl-mmsegmentation": "1.4.2",
    "onedl-mmdetection": "3.5.1",
}
