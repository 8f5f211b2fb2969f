"""A resume takes the newest whole checkpoint of the folder itself."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
import torch

from mmclipdis.engine.checkpoint_files import (
    last_good_checkpoint,
    newest_checkpoint,
    saved_checkpoints,
)

NAN = float("nan")


def save(path: Path, value: float = 1.0, age: float = 0.0, **options: bool) -> Path:
    """A small checkpoint, written ``age`` seconds ago."""
    path.parent.mkdir(exist_ok=True)
    torch.save({"state_dict": {"w": torch.full((64,), value)}, "meta": {}}, path, **options)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-30])
    return path


def test_the_largest_is_the_newest_and_best_ones_do_not_count(tmp_path: Path) -> None:
    for name in ("iter_10.pth", "iter_9.pth", "best_mIoU_iter_11.pth"):
        save(tmp_path / name)
    assert [p.name for p in saved_checkpoints(tmp_path)] == ["iter_10.pth", "iter_9.pth"]
    assert newest_checkpoint(tmp_path) == str(tmp_path / "iter_10.pth")
    assert newest_checkpoint(tmp_path / "none") is None


def test_a_copied_folder_resumes_from_its_own_file(tmp_path: Path) -> None:
    original = save(tmp_path / "original" / "iter_9.pth")
    copied = save(tmp_path / "copy" / "iter_9.pth")
    (tmp_path / "copy" / "last_checkpoint").write_text(str(original))
    assert newest_checkpoint(tmp_path / "copy") == str(copied)


def test_a_checkpoint_elsewhere_is_taken_where_the_folder_has_none(tmp_path: Path) -> None:
    elsewhere = save(tmp_path / "out_dir" / "iter_9.pth")
    work = tmp_path / "work"
    work.mkdir()
    (work / "last_checkpoint").write_text(str(elsewhere))
    assert newest_checkpoint(work) == str(elsewhere)
    (work / "last_checkpoint").write_text("s3://bucket/iter_9.pth")
    assert newest_checkpoint(work) == "s3://bucket/iter_9.pth"


def test_a_kill_before_last_checkpoint_was_written_and_an_earlier_run_are_told_apart(
    tmp_path: Path,
) -> None:
    save(tmp_path / "iter_10.pth", age=100)
    save(tmp_path / "iter_20.pth", age=50)
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_10.pth"))
    assert newest_checkpoint(tmp_path) == str(tmp_path / "iter_20.pth")
    save(tmp_path / "iter_20.pth", age=500)  # of a run before this one
    assert newest_checkpoint(tmp_path) == str(tmp_path / "iter_10.pth")


def test_a_damaged_one_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    whole = save(tmp_path / "iter_10.pth")
    cut(save(tmp_path / "iter_20.pth"))
    (tmp_path / "last_checkpoint").write_text("/elsewhere/iter_20.pth")
    with pytest.warns(UserWarning, match=r"iter_20.pth' is cut short .* before, '.*iter_10.pth'"):
        assert newest_checkpoint(tmp_path) == str(whole)
    cut(whole)
    with pytest.raises(ValueError, match=r"no checkpoint of .*20.pth', '.*10.pth' is cut"):
        newest_checkpoint(tmp_path)


def test_a_byte_that_was_changed_counts_as_damage(tmp_path: Path) -> None:
    path = save(tmp_path / "iter_20.pth")
    data = bytearray(path.read_bytes())
    data[data.index(torch.ones(1).numpy().tobytes() * 8) + 3] ^= 64
    path.write_bytes(data)
    with pytest.raises(ValueError, match="cut short or damaged"):
        newest_checkpoint(tmp_path)


def test_files_of_an_old_pytorch_are_whole(tmp_path: Path) -> None:
    path = save(tmp_path / "iter_20.pth", _use_new_zipfile_serialization=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert newest_checkpoint(tmp_path) == str(path)


def test_the_last_good_one_is_finite_and_can_be_read(tmp_path: Path) -> None:
    good = save(tmp_path / "iter_10.pth")
    save(tmp_path / "iter_20.pth", NAN)
    cut(save(tmp_path / "iter_30.pth"))
    assert last_good_checkpoint(tmp_path) == str(good)
    good.unlink()
    assert last_good_checkpoint(tmp_path) is None


def test_a_pointer_to_a_file_that_is_gone_is_said(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "iter_2.pth")
    (tmp_path / "last_checkpoint").write_text("/old/work/iter_4.pth")
    with pytest.warns(
        UserWarning, match=r"names 'iter_4\.pth', which is not there; .*'iter_2\.pth'"
    ):
        assert newest_checkpoint(tmp_path) == str(tmp_path / "iter_2.pth")


@pytest.mark.parametrize("text", ["x" * 5000, "a/" * 2000 + "x" * 300, "iter_2.pth\0", "\0"])
def test_a_pointer_that_is_no_name_of_a_file_is_passed_over(tmp_path: Path, text: str) -> None:
    torch.save({"state_dict": {}}, tmp_path / "iter_2.pth")
    (tmp_path / "last_checkpoint").write_text(text)
    assert newest_checkpoint(tmp_path) == str(tmp_path / "iter_2.pth")
