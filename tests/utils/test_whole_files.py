"""A file appears whole or not at all: for its reader, the next run, and after a power failure."""

from __future__ import annotations

import errno
import os
import resource
import stat
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from mmclipdis.utils import whole_files
from mmclipdis.utils.whole_files import (
    refuse_existing,
    whole_file,
    write_bytes,
    write_picture,
    write_text,
)

OLD = b"old content"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "file.bin"
    path.write_bytes(OLD)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_old_file_stands_until_the_new_one_is_complete(target: Path) -> None:
    with whole_file(target) as file:
        file.write(b"new")
        file.flush()
        assert target.read_bytes() == OLD
    assert target.read_bytes() == b"new"
    assert names(target.parent) == ["file.bin"]


def test_folders_are_made_and_texts_are_utf8_with_plain_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "t.txt", "grün\n")
    assert (tmp_path / "a" / "b" / "t.txt").read_bytes() == "grün\n".encode()


def test_content_is_synced_before_the_rename_and_the_folder_after_it(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, Any]] = []
    fsync, replace = os.fsync, os.replace

    def logged_fsync(descriptor: int) -> None:
        info = os.fstat(descriptor)
        kind = "folder" if stat.S_ISDIR(info.st_mode) else "file"
        events.append((kind, (info.st_ino, info.st_size if kind == "file" else None)))
        fsync(descriptor)

    def logged_replace(source: Any, goal: Any) -> None:
        events.append(("replace", os.stat(source).st_ino))
        replace(source, goal)

    monkeypatch.setattr(whole_files.os, "fsync", logged_fsync)
    monkeypatch.setattr(whole_files.os, "replace", logged_replace)
    write_bytes(target, b"12345")
    inode = target.stat().st_ino
    assert events == [
        ("file", (inode, 5)),  # all five bytes have left Python's buffer by then
        ("replace", inode),
        ("folder", (target.parent.stat().st_ino, None)),
    ]


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), SystemExit(1)])
def test_a_failure_leaves_the_old_file_and_nothing_else(target: Path, error: BaseException) -> None:
    def fail() -> None:
        with whole_file(target) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert target.read_bytes() == OLD
    assert names(target.parent) == ["file.bin"]


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_a_failing_step_leaves_the_old_file_and_names_it(
    target: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    target.chmod(0o611)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(whole_files.os, step, fail)
    with pytest.raises(OSError, match=r"No space left on device: '.*/file\.bin'"):
        write_bytes(target, b"new")
    assert target.read_bytes() == OLD
    assert names(target.parent) == ["file.bin"]


def test_a_folder_that_cannot_be_synced_does_no_harm(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(whole_files.os, "fsync", files_only)
    write_bytes(target, b"new")
    assert target.read_bytes() == b"new"


def test_temporary_names_cannot_be_guessed(tmp_path: Path) -> None:
    seen = set()
    for _ in range(3):
        with whole_file(tmp_path / "file.bin") as file:
            seen.add(Path(file.name).name)
            assert Path(file.name).parent == tmp_path
    assert len(seen) == 3
    random = [name.removeprefix(".file.bin.").removesuffix(".tmp") for name in seen]
    assert all(len(bytes.fromhex(part)) == 16 for part in random)
    assert not any(str(os.getpid()) == part for part in random)


@pytest.mark.parametrize("kind", ["link", "dangling", "file"])
def test_what_another_put_at_the_temporary_name_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(whole_files.secrets, "token_hex", lambda size: "known")
    victim, trap = tmp_path / "victim", tmp_path / "out" / ".file.bin.known.tmp"
    trap.parent.mkdir()
    if kind != "dangling":
        victim.write_bytes(OLD)
    if kind == "file":
        victim.rename(trap)
    else:
        trap.symlink_to(victim)
    with pytest.raises(FileExistsError, match=r"'.*/out/file\.bin'"):
        write_bytes(tmp_path / "out" / "file.bin", b"new")
    assert names(trap.parent) == [trap.name]
    if kind == "dangling":
        assert not victim.exists()
    else:
        assert trap.read_bytes() == OLD


def test_a_link_at_the_target_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_bytes(OLD)
    victim.chmod(0o600)
    link.symlink_to(victim)
    write_bytes(link, b"new")
    assert victim.read_bytes() == OLD
    assert not link.is_symlink()
    assert link.read_bytes() == b"new"
    assert link.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_bytes(tmp_path / "file.bin", b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "file.bin").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o444])
def test_a_replaced_file_keeps_its_permissions_all_along(target: Path, mode: int) -> None:
    target.chmod(mode)
    with whole_file(target) as file:
        assert os.stat(file.name).st_mode & 0o777 == mode  # before anybody could read it
        file.write(b"new")
    assert target.stat().st_mode & 0o777 == mode
    assert target.read_bytes() == b"new"


def test_writers_at_the_same_time_leave_one_whole_file(tmp_path: Path) -> None:
    target, start = tmp_path / "file.bin", threading.Barrier(4)

    def write(letter: bytes) -> None:
        start.wait()
        for _ in range(5):
            with whole_file(target) as file:
                for _ in range(50):
                    file.write(letter * 1000)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    start.wait()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        if target.exists():
            content = target.read_bytes()
            seen.add((len(content), len(set(content))))
    assert seen <= {(50_000, 1)}
    content = target.read_bytes()
    assert len(content) == 50_000 and len(set(content)) == 1
    assert names(tmp_path) == ["file.bin"]


def test_two_writers_in_turn_do_not_disturb_each_other(tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    with whole_file(target) as first, whole_file(target) as second:
        first.write(b"first")
        second.write(b"second")
    assert target.read_bytes() == b"first"  # renamed last
    assert names(tmp_path) == ["file.bin"]


@pytest.fixture
def small_disk():
    """Files of this process may have 100,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _savez(file: Any) -> None:
    np.savez_compressed(file, a=np.random.default_rng(0).random(100_000))


@pytest.mark.parametrize(
    "save",
    [
        lambda file: file.write(bytes(1_000_000)),
        lambda file: torch.save({"a": torch.zeros(100_000)}, file),
        lambda file: np.save(file, np.zeros(100_000)),
        _savez,
    ],
    ids=["bytes", "torch", "numpy", "npz"],
)
def test_a_full_disk_is_one_error_that_names_the_target(
    target: Path, small_disk: None, save: Any
) -> None:
    with pytest.raises(OSError, match=r"/file\.bin'") as caught, whole_file(target) as file:
        save(file)
    assert ".tmp" not in str(caught.value)
    assert target.read_bytes() == OLD
    assert names(target.parent) == ["file.bin"]


def test_a_folder_that_cannot_be_made_or_written_is_one_error(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotADirectoryError, match=r"/file\.bin/new/out\.txt'"):
        write_text(target / "new" / "out.txt", "")

    def refuse(*_: object) -> None:  # as root, no folder refuses
        raise PermissionError(
            errno.EACCES, "Permission denied", str(target.parent / ".file.bin.x.tmp")
        )

    monkeypatch.setattr(whole_files, "open", refuse, raising=False)
    monkeypatch.setattr(whole_files.secrets, "token_hex", lambda size: "x")
    with pytest.raises(PermissionError, match=r"Permission denied: '.*/file\.bin'"):
        write_bytes(target, b"new")


def test_errors_about_other_files_keep_their_own_words(target: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent'$"), whole_file(target):
        Path("absent").read_bytes()
    with pytest.raises(UnidentifiedImageError), whole_file(target):
        Image.open(target)
    assert target.read_bytes() == OLD


def test_folders_and_devices_are_not_replaced(tmp_path: Path) -> None:
    folder, pipe = tmp_path / "folder", tmp_path / "pipe"
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match=r"/folder'"):
        write_bytes(folder, b"new")
    for overwrite in (False, True):  # a tool says so before it computes anything
        with pytest.raises(IsADirectoryError, match=r"/folder' is a folder; name a file in it"):
            refuse_existing(folder, overwrite)
    os.mkfifo(pipe)
    with pytest.raises(OSError, match=r"Not a regular file, cannot be replaced: '.*/pipe'"):
        write_bytes(pipe, b"new")
    assert names(tmp_path) == ["folder", "pipe"] and pipe.is_fifo()


def test_long_names_fit(tmp_path: Path) -> None:
    for name in ("n" * 255, "ü" * 127):
        write_bytes(tmp_path / name, b"new")
        assert (tmp_path / name).read_bytes() == b"new"


@pytest.mark.parametrize(("name", "kind"), [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.tif", "TIFF")])
def test_a_picture_has_the_format_of_its_ending(tmp_path: Path, name: str, kind: str) -> None:
    write_picture(tmp_path / name, Image.new("RGB", (5, 4), "red"))
    with Image.open(tmp_path / name) as picture:
        assert (picture.format, picture.size) == (kind, (5, 4))
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("name", ["a", "a.xyz", "a.txt"])
def test_an_ending_of_no_picture_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no ending of a picture"):
        write_picture(tmp_path / name, Image.new("RGB", (5, 4)))
    assert names(tmp_path) == []
