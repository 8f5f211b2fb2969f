"""Photos to search, and one tiny segmentor for all tests that need no other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from mmclipdis.apis import OpenVocabSegInferencer
from mmclipdis.commands import work
from mmclipdis.shapes.coco import Settings, write_dataset


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos of ShapeScenes."""
    folder = tmp_path_factory.mktemp("shapes")
    write_dataset(folder, Settings(train=1, val=3, seed=3))
    return folder / "images" / "val"


@pytest.fixture
def photos(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two photos ``photos/a.png`` and ``photos/b.png``; tests run in the folder around them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, source in zip("ab", sorted(shapes.glob("*.png")), strict=False):
        shutil.copy(source, folder / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture(scope="session")
def segmentor() -> Any:
    return OpenVocabSegInferencer()


@pytest.fixture
def quick(segmentor: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The one segmentor is what `mmclipdis segment` builds."""
    monkeypatch.setattr(work, "_inferencer", lambda job: segmentor)
    return segmentor
