"""Lists and tables of labels are read as people and programs write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmclipdis.datasets import MultiLabelListDataset
from mmclipdis.datasets.recognition.listed import read_labels


def dataset(folder: Path, text: str, name: str = "a.csv", **options: Any) -> MultiLabelListDataset:
    (folder / name).write_bytes(text.encode(options.pop("encoding", "utf-8")))
    (folder / "images").mkdir(exist_ok=True)
    return MultiLabelListDataset(
        name, data_root=str(folder), data_prefix={"img_path": "images"}, **options
    )


def labels(found: MultiLabelListDataset) -> dict[str, list[int]]:
    items = (found.get_data_info(place) for place in range(len(found)))
    return {Path(item["img_path"]).name: item["gt_score"].tolist() for item in items}


PLAIN = "a.jpg, sky, sea\nb c.jpg, sky\nd.jpg\n"
WANTED = {"a.jpg": [1, 1], "b c.jpg": [0, 1], "d.jpg": [0, 0]}
WAYS = {
    "plain": PLAIN,
    "of Windows": "\ufeff" + PLAIN.replace("\n", "\r\n"),
    "with a head": "file, labels\n" + PLAIN,
    "with blank lines": "\n" + PLAIN.replace("\n", "\n\n"),
    "semicolons": PLAIN.replace(",", ";"),
    "tabs": PLAIN.replace(", ", "\t"),
    "a row a label": "filename,label\na.jpg,sky\na.jpg,sea\nb c.jpg,sky\nd.jpg,\n",
    "a table": "filename, sea, sky\na.jpg, 1, 1\nb c.jpg, 0, 1\nd.jpg, 0, 0\n",
    "a table with gaps": "image;sea;sky\na.jpg;1;1\nb c.jpg;;1\nd.jpg;;\n",
    "a table of words": "path,sea,sky\na.jpg,True,TRUE\nb c.jpg,False,true\nd.jpg,false,false\n",
    "a table of yes and no": "image_id,sea,sky\na.jpg,yes,yes\nb c.jpg,no,yes\nd.jpg,no,no\n",
    "with another head": "Image Path, label\n" + PLAIN,
    "filled to a rectangle": "a.jpg,sky,sea\nb c.jpg,sky,\nd.jpg,,\n",
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_same_labels(tmp_path: Path, way: str) -> None:
    found = dataset(tmp_path, WAYS[way], filter_empty=False)
    assert found.metainfo["classes"] == ("sea", "sky")
    assert labels(found) == WANTED


def test_classes_of_the_config_give_the_order_and_those_that_none_shows(tmp_path: Path) -> None:
    chosen = {"classes": ("kite", "sky", "sea")}
    found = dataset(tmp_path, PLAIN, metainfo=chosen)
    assert labels(found) == {"a.jpg": [0, 1, 1], "b c.jpg": [0, 1, 0]}  # empty ones left out


def test_unknown_labels_stay_unknown_and_names_may_hold_commas(tmp_path: Path) -> None:
    text = 'file,"sea, deep",sky\n"a, b.jpg",-1,1\n'
    found = dataset(tmp_path, text)
    assert found.metainfo["classes"] == ("sea, deep", "sky")
    assert labels(found) == {"a, b.jpg": [-1, 1]}


def test_lists_without_endings_and_text_files(tmp_path: Path) -> None:
    found = dataset(tmp_path, "train/a,sky\n", "list.txt", img_suffix=".png")
    assert found.get_data_info(0)["img_path"] == str(tmp_path / "images/train/a.png")


def test_lines_are_counted_for_messages(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('file,labels\n\n"a\nb.jpg",sky\nc.jpg,sea\n')
    assert read_labels(tmp_path / "a.csv").lines == {"a\nb.jpg": 4, "c.jpg": 5}
