"""Folders of photos as people have them, with their label maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmseg.datasets import BaseSegDataset
from PIL import Image

from mmclipdis.datasets import FolderSegDataset

CLASSES = {"classes": ("sky", "car")}


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(folder / name)


def pairs(folder: Path, **options: Any) -> dict[str, str]:
    found = FolderSegDataset(data_root=str(folder), metainfo=CLASSES, **options)
    items = (found.get_data_info(place) for place in range(len(found)))
    return {
        str(Path(item["img_path"]).relative_to(folder)): str(
            Path(item["seg_map_path"]).relative_to(folder)
        )
        for item in items
    }


def test_photos_of_all_endings_have_maps_of_their_names(tmp_path: Path) -> None:
    write(tmp_path / "img", "a.JPG", "b 2.png", "deep/c.v1.jpeg", ".hidden.jpg")
    write(tmp_path / "ann", "a.png", "b 2.png", "deep/c.v1.png")
    (tmp_path / "img/notes.txt").write_text("no photo")
    assert pairs(tmp_path, data_prefix={"img_path": "img", "seg_map_path": "ann"}) == {
        "img/a.JPG": "ann/a.png",
        "img/b 2.png": "ann/b 2.png",
        "img/deep/c.v1.jpeg": "ann/deep/c.v1.png",
    }


def test_photos_and_maps_may_share_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "a_mask.png", "b.jpg", "b_mask.png")
    same = {"img_path": "", "seg_map_path": ""}
    assert pairs(tmp_path, data_prefix=same, seg_map_suffix="_mask.png") == {
        "a.png": "a_mask.png",
        "b.jpg": "b_mask.png",
    }


def test_with_an_ending_it_is_mmsegs(tmp_path: Path) -> None:
    write(tmp_path / "img", "a.jpg", "b.jpg", "c.png", "deep/d.jpg")
    write(tmp_path / "ann", "a.png", "b.png", "deep/d.png")
    options = {
        "data_root": str(tmp_path),
        "data_prefix": {"img_path": "img", "seg_map_path": "ann"},
        "metainfo": CLASSES,
        "img_suffix": ".jpg",
    }
    ours, theirs = (
        [kind(**options).get_data_info(place) for place in range(3)]
        for kind in (FolderSegDataset, BaseSegDataset)
    )
    assert ours == theirs
    (tmp_path / "list.txt").write_text("b\ndeep/d\n")
    listed = FolderSegDataset(ann_file="list.txt", **options)
    found = [listed.get_data_info(place)["seg_map_path"] for place in range(len(listed))]
    assert found == [item["seg_map_path"] for item in ours[1:]]
