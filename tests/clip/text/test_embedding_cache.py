"""Where the disk cache of text embeddings lies, and how its files appear."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mmclipdis.clip.text.embedding_cache import default_cache_dir, read_cached, write_cached


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MMCLIPDIS_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return tmp_path / "home"


def test_the_own_variable_goes_first(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("MMCLIPDIS_CACHE", "~/mine")
    assert default_cache_dir() == home / "mine"


def test_without_variables_it_lies_in_the_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_cache_dir() == home / ".cache" / "mmclipdis"
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert default_cache_dir() == home / ".cache" / "mmclipdis"


def test_xdg_is_respected_and_an_old_cache_stays_in_use(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    new, old = tmp_path / "xdg" / "mmclipdis", home / ".cache" / "mmclipdis"
    assert default_cache_dir() == new
    old.mkdir(parents=True)
    assert default_cache_dir() == old
    new.mkdir(parents=True)
    assert default_cache_dir() == new


def test_a_changed_content_is_computed_again_with_a_word(tmp_path: Path) -> None:
    path = tmp_path / "text.safetensors"
    write_cached(path, "key", torch.ones(2, 3))
    content = bytearray(path.read_bytes())
    content[-2] ^= 1  # one bit of one number; key, shape and finiteness are as before
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged .its content is not what was written"):
        assert read_cached(path, "key", (2, 3)) is None


def test_files_of_before_the_digest_are_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "text.safetensors"
    save_file({"embeddings": torch.ones(2, 3)}, path, metadata={"key": "key"})
    assert read_cached(path, "key", (2, 3)) is None


def test_half_precision_and_odd_layouts_are_kept(tmp_path: Path) -> None:
    for content in (torch.randn(3, 2).half().t(), torch.randn(2, 3, dtype=torch.float64)):
        write_cached(tmp_path / "a.safetensors", "key", content)
        assert torch.equal(read_cached(tmp_path / "a.safetensors", "key", (2, 3)), content)


def test_a_disk_that_takes_no_more_is_a_warning_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "text.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr("mmclipdis.utils.whole_files.os.fsync", full)
        with pytest.warns(UserWarning, match=r"not cached: .*No space .*text\.safetensors'"):
            write_cached(path, "key", torch.ones(2, 3))
    assert list(tmp_path.iterdir()) == []
    write_cached(path, "key", torch.ones(2, 3))
    assert torch.equal(read_cached(path, "key", (2, 3)), torch.ones(2, 3))
