"""A-847 and PC-459: names from the data's file, 16-bit labels, palettes, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from mmseg.registry import DATASETS

from mmclipdis.datasets import ADE20K847Dataset, PascalContext459Dataset
from mmclipdis.datasets.segmentation.large_vocabulary import palette, warn_of_shared_names
from tests.datasets.segmentation.benchmark_files import BENCHMARKS

LOAD = [{"type": "mmseg.LoadReadableImage"}, {"type": "mmseg.LoadReadableAnnotations"}]
KINDS = {"a847": ADE20K847Dataset, "pc459": PascalContext459Dataset}
LABELS = [[0, 255, 256], [458, 300, 65535]]


def arguments(name: str, root: Path, **more: Any) -> dict[str, Any]:
    files = BENCHMARKS[name]
    return {
        "data_root": str(files.write(root, {"a": LABELS})),
        "data_prefix": {"img_path": files.images, "seg_map_path": files.labels},
        "ann_file": files.split,
        "pipeline": LOAD,
        **more,
    }


@pytest.mark.parametrize("name", KINDS)
def test_names_come_from_the_file_and_labels_are_whole(tmp_path: Path, name: str) -> None:
    data = DATASETS.build(dict(type=KINDS[name].__name__, **arguments(name, tmp_path)))
    count = BENCHMARKS[name].classes
    assert len(data.metainfo["classes"]) == count
    assert data.metainfo["classes"][count - 1] == f"class {count - 1}, synonym {count - 1}"
    assert data.ignore_index == 65535
    assert data[0]["gt_seg_map"].tolist() == LABELS
    assert data.metainfo["palette"] == palette(count)


def test_the_palette_is_vocs_and_goes_on_distinct() -> None:
    colours = palette(847)
    assert colours[:3] == [[128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert colours[14] == [192, 128, 128]  # VOC's person
    assert len({tuple(colour) for colour in colours}) == 847
    assert [0, 0, 0] not in colours and palette(459) == colours[:459]


@pytest.mark.parametrize("name", KINDS)
def test_a_missing_list_of_names_says_what_writes_it(tmp_path: Path, name: str) -> None:
    files = arguments(name, tmp_path)
    (tmp_path / BENCHMARKS[name].names).unlink()
    command = {"a847": "ade20k_full.py ADE20K_2021_17_01", "pc459": "pascal_context.py data/VOC"}
    message = r"no list of classes at '.*classes\.txt'; 'python tools/dataset_converters/"
    with pytest.raises(FileNotFoundError, match=message + command[name]):
        KINDS[name](**files)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty.*full.py ADE20K_2021_17_01. writes it"),
        (
            "wall\nsky\n",
            "has 2 lines, but the data set has 847 classes.*full.py ADE20K_2021_17_01. writes it",
        ),
        ("wall\n\nsky\n", "line 2 is blank.*full.py ADE20K_2021_17_01. writes it"),
    ],
)
def test_a_list_of_another_length_is_refused(tmp_path: Path, content: str, message: str) -> None:
    files = arguments("a847", tmp_path)
    (tmp_path / "classes.txt").write_text(content)
    with pytest.raises(ValueError, match=rf"ADE20K847Dataset: .*{message}"):
        ADE20K847Dataset(**files)


def test_missing_photos_and_split_are_named(tmp_path: Path) -> None:
    files = arguments("pc459", tmp_path)
    (tmp_path / files["ann_file"]).unlink()
    with pytest.raises(FileNotFoundError, match=r"no split file .*val_459\.txt"):
        PascalContext459Dataset(**files)
    with pytest.raises(FileNotFoundError, match="no image folder"):
        PascalContext459Dataset(**{**files, "data_prefix": {"img_path": "photos"}})


def test_some_classes_may_be_kept(tmp_path: Path) -> None:
    """Those left out become 65535, where mmseg would write 255, which is a class here."""
    kept = ["class 458, synonym 458", "class 255, synonym 255"]
    data = ADE20K847Dataset(**arguments("a847", tmp_path, metainfo={"classes": kept}))
    assert data[0]["gt_seg_map"].tolist() == [[65535, 1, 65535], [0, 65535, 65535]]
    assert data.metainfo["palette"] == [palette(847)[458], palette(847)[255]]
    with pytest.raises(ValueError, match=r"names \['bag'\], which the list of classes does not"):
        ADE20K847Dataset(**arguments("a847", tmp_path, metainfo={"classes": ["bag"]}))


@pytest.mark.parametrize("option", [{"ignore_index": 255}, {"reduce_zero_label": True}])
def test_other_labels_than_the_converters_are_refused(
    tmp_path: Path, option: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"0\.\.846 and 65535 .*leave both out"):
        ADE20K847Dataset(**arguments("a847", tmp_path, **option))


@pytest.mark.parametrize("scope", ["mmseg.", ""])
@pytest.mark.parametrize("nested", [False, True])
def test_loading_of_eight_bits_is_refused(tmp_path: Path, scope: str, nested: bool) -> None:
    """mmseg's, and mmcv's in the root; also in a pipeline of test-time augmentation."""
    loading = {"type": f"{scope}LoadAnnotations"}
    if nested:
        loading = {"type": "TestTimeAug", "transforms": [[loading]]}
    with pytest.raises(ValueError, match="cuts 16-bit labels to 8 bits; use LoadReadable"):
        ADE20K847Dataset(**arguments("a847", tmp_path, pipeline=[LOAD[0], loading]))


def test_shared_first_names_are_warned_of_once_by_name(tmp_path: Path) -> None:
    files = arguments("a847", tmp_path)
    names = (tmp_path / "classes.txt").read_text().splitlines()
    for i, name in {3: "bag", 10: "Bag, sack", 846: "bag,  purse", 5: "pot", 6: "pot"}.items():
        names[i] = name
    (tmp_path / "classes.txt").write_text("\n".join(names))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(2):  # validation and testing
            data = ADE20K847Dataset(**files)
    shared = [str(w.message) for w in caught if "share" in str(w.message)]
    assert len(shared) == 1
    assert "ADE20K847Dataset: 3 of 847 classes" in shared[0]
    assert "bag (3, 10, 846); pot (5, 6)" in shared[0] and "never both win" in shared[0]
    assert len(data.metainfo["palette"]) == 847


def test_distinct_names_are_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_shared_names("data", ["door, bag", "bag", "bag of rice"])
