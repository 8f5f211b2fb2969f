"""Nothing is written into an installed package."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmclipdis.utils import places, whole_files
from tests.paths import ROOT


def test_a_clone_is_its_own_place() -> None:
    assert places.IN_CLONE and places.ROOT == ROOT and places.RESULTS == ROOT / "results"


def test_a_file_of_an_installed_package_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_files, "IN_CLONE", False)
    monkeypatch.setattr(whole_files, "PACKAGE", tmp_path / "mmclipdis")
    own = tmp_path / "weights.safetensors"
    own.touch()
    whole_files.refuse_existing(own, overwrite=True)
    with pytest.raises(FileExistsError, match="came with the installed package .*name another"):
        whole_files.refuse_existing(tmp_path / "mmclipdis" / "w.safetensors", overwrite=True)
