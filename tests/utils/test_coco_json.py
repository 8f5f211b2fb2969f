"""A json that is none, or not of COCO's kind, is refused by name."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from mmclipdis.utils.coco_json import check_parts, read_coco, read_json


def test_what_is_sound_is_read_as_it_is(tmp_path: Path) -> None:
    content = {"images": [], "annotations": [], "categories": [], "info": {"year": 2017}}
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert read_coco(tmp_path / "a.json") == content


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (gzip.compress(b"{}", mtime=0), r"compressed \(gzip\); unpack it"),
        (bz2.compress(b"{}"), r"compressed \(bzip2\); unpack it"),
        (b"[" * 100_000, "is no json"),
        (b"", "is no json"),
    ],
)
def test_files_that_are_no_json(data: bytes, line: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(ValueError, match=line) as caught:
        read_json(tmp_path / "a.json", "set ann_file")
    assert len(str(caught.value)) < 700
    with pytest.raises(FileNotFoundError, match=r"b.json'; set ann_file"):
        read_json(tmp_path / "b.json", "set ann_file")


@pytest.mark.parametrize(
    ("images", "line"),
    [
        ([{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "have the same id 1"),
        ([{"file_name": "a"}], r"images\[0\] has no id"),
        ([{"id": [1], "file_name": "a"}], r"images\[0\] has no id"),
        ([{"id": 1}], "image 1 has no file_name"),
        ([None], r"images\[0\] is None, no dict"),
    ],
)
def test_entries_that_cannot_be_told_apart(images: Any, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        check_parts({"images": images}, "a.json", ("images",))
    check_parts({"images": [{"id": 1, "coco_url": "x/a.jpg"}]}, "a.json", ("images",))
