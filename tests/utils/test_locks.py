"""A lock is one file's at a time, and where there are none nobody is told that one is held."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmclipdis.utils import locks


def test_a_file_is_locked_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("a") as first, path.open("a") as second:
        assert locks.lock(first) is True
        assert locks.lock(second.fileno()) is False
        first.close()
        assert locks.lock(second, wait=True) is True


def test_a_process_may_take_its_own_lock_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("a") as first, path.open("a") as second:
        assert locks.lock(first, of_process=True) is True
        assert locks.lock(second, of_process=True) is True


def test_systems_without_locks_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    with (tmp_path / "file").open("a") as file:
        assert locks.lock(file) is None
