"""Names in lists may not lead out of the data set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmclipdis.utils.paths import check_inside


@pytest.mark.parametrize(
    "name",
    ["a.jpg", "x/a.jpg", "x/../a.jpg", "../val/a.jpg", "a..b.jpg", "..a/b.jpg", "{root}/val/a.jpg"],
)
def test_names_within_the_data_set_pass(tmp_path: Path, name: str):
    folder = str(tmp_path / "train")
    path = os.path.join(folder, name.format(root=tmp_path))
    check_inside([path], [str(tmp_path), folder], "list")


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../../etc/x", "x/../../../y", "../../{name}2/a.jpg", "../.."]
)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str):
    folder = str(tmp_path / "train")
    path = os.path.join(folder, name.format(name=tmp_path.name))
    with pytest.raises(ValueError, match=r"^list names .* lies outside .*; correct the name") as e:
        check_inside([path], [str(tmp_path), folder], "list")
    assert path in str(e.value)


def test_relative_folders_are_compared_too():
    check_inside(["data/x/a.jpg", "./data/b.jpg", "data/../data/c.jpg"], ["data"], "list")
    with pytest.raises(ValueError, match=r"names 'data/\.\./b\.jpg'"):
        check_inside(["data/a.jpg", "data/../b.jpg"], ["", None, "data"], "list")


def test_without_a_folder_there_is_nothing_to_leave():
    check_inside(["/anywhere/a.jpg", "../b.jpg"], ["", None], "list")


def test_links_inside_may_point_anywhere(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to("/")
    check_inside([str(tmp_path / "data/train/a.jpg")], [str(tmp_path / "data")], "list")
