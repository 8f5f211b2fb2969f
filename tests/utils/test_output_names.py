"""Outputs of photos with one name in several folders stay apart."""

from __future__ import annotations

import os

import pytest

from mmclipdis.utils.output_names import NamesSoFar, output_names


@pytest.mark.parametrize(
    ("photos", "names"),
    [
        ([], []),
        (["/d/a.jpg", "/d/b.jpg"], ["a.png", "b.png"]),
        (["/d/x/a.jpg", "/d/y/a.jpg"], ["x/a.png", "y/a.png"]),
        (["/d/val/x/1.png", "/d/val/x/2.png", "/d/val/3.png"], ["x/1.png", "x/2.png", "3.png"]),
        (["a.jpg", "a.png", "b.c.png"], ["a.jpg.png", "a.png.png", "b.c.png"]),
        (["/d/a.jpg", "/d/A.JPG", "/d/a.jpg"], ValueError),
        (["/d/a.jpg", "/d/A.png"], ["a.jpg.png", "A.png.png"]),
        (["/d/x/../a.jpg", "/d/b.jpg"], ["a.png", "b.png"]),
        (["s3://bucket/x/a.jpg", "s3://bucket/y/a.jpg"], ["x/a.png", "y/a.png"]),
        (["/ab/a.jpg", "/ac/a.jpg"], ["ab/a.png", "ac/a.png"]),
    ],
)
def test_folders_below_the_common_root_are_kept(photos: list[str], names: object) -> None:
    if names is ValueError:
        with pytest.raises(ValueError, match=r"'/d/a.jpg' and '/d/A.JPG' would both be"):
            output_names(photos)
    else:
        assert list(output_names(photos).values()) == names


def test_without_the_list_it_stops_before_the_first_overwrite() -> None:
    names = NamesSoFar("out")
    assert names.of("/d/x/a.jpg") == "a.png" == names.of("/d/x/a.jpg")  # padding repeats photos
    with pytest.raises(ValueError, match=r"'out' holds 'a.png' of '/d/x/a.jpg', .*'/d/y/a.jpg'"):
        names.of("/d/y/a.jpg")
    assert names.written == {"a.png"}


@pytest.mark.parametrize(
    "photos",
    [["/d/a.jpg", "a.jpg"], ["../a.jpg", "b/a.jpg"], ["../../a.jpg", "../b/a.jpg"]],
    ids=["absolute and relative", "above", "far above"],
)
def test_no_output_leads_out_of_its_folder(photos: list[str]) -> None:
    names = output_names(photos)
    assert len(set(names.values())) == len(photos)
    for name in names.values():
        assert not os.path.isabs(name)
        assert ".." not in name
