"""Label maps of 8 and 16 bits are read whole, and refused when something could be lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS
from PIL import Image

from mmclipdis.datasets import LoadReadableAnnotations
from mmclipdis.datasets.segmentation.label_maps import reduce_zero, renumber

WIDE = [[0, 1, 255, 256], [458, 700, 846, 65535]]
#: What of these labels mmseg keeps, in 8 bits.
CUT = [[0, 1, 255, 0], [202, 188, 78, 255]]


def load(path: Path, bits: int | None = None, **sample: Any) -> np.ndarray:
    results = {"seg_map_path": str(path), "reduce_zero_label": False, "seg_fields": [], **sample}
    loaded = LoadReadableAnnotations(bits=bits)(results)
    assert loaded["seg_fields"] == ["gt_seg_map"]
    return np.asarray(loaded["gt_seg_map"])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("writer", ["pillow", "opencv"])
@pytest.mark.parametrize("backend", ["pillow", "cv2"])
def test_sixteen_bits_survive(tmp_path: Path, suffix: str, writer: str, backend: str) -> None:
    path, labels = tmp_path / f"a{suffix}", np.array(WIDE, np.uint16)
    if writer == "pillow":
        Image.fromarray(labels).save(path)
    else:
        cv2.imwrite(str(path), labels)
    step = LoadReadableAnnotations(imdecode_backend=backend)
    sample = {"seg_map_path": str(path), "reduce_zero_label": False, "seg_fields": []}
    assert step({**sample, "label_bits": 16})["gt_seg_map"].tolist() == WIDE
    assert LoadAnnotations()({**sample, "seg_fields": []})["gt_seg_map"].tolist() == CUT


@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.uint16, 16)])
def test_zero_is_reduced_to_the_ignored_label(dtype: type, bits: int) -> None:
    top = 2**bits - 1
    labels = np.array([[0, 1, 2, top - 1, top]], dtype)
    assert reduce_zero(labels).tolist() == [[top, 0, 1, top - 2, top]]
    assert labels[0, 0] == 0


def test_eight_bits_are_mmsegs(tmp_path: Path) -> None:
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(8, 32)).save(tmp_path / "a.png")
    sample = {
        "seg_map_path": str(tmp_path / "a.png"),
        "reduce_zero_label": True,
        "label_map": {0: 1, 1: 0, 7: 255, 250: 3},
    }
    ours, theirs = (
        step({**sample, "seg_fields": []})["gt_seg_map"]
        for step in (LoadReadableAnnotations(), LoadAnnotations())
    )
    assert ours.dtype == theirs.dtype == np.uint8
    assert np.array_equal(ours, theirs)


def test_classes_are_renumbered_in_sixteen_bits() -> None:
    labels = np.array([[0, 255, 256, 700, 65535]], np.uint16)
    swapped = renumber(labels, {0: 255, 255: 0, 256: 65535, 700: 256})
    assert swapped.tolist() == [[255, 0, 65535, 256, 65535]]


def test_sixteen_bits_are_not_cut_to_eight(tmp_path: Path) -> None:
    Image.fromarray(np.array([[3, 700]], np.uint16)).save(tmp_path / "a.tif")
    message = r"a\.tif holds labels 3 to 700 in 16 bits, but .* 8-bit labels, 0 to 255; read it "
    with pytest.raises(ValueError, match=message + r"with .*ADE20K847Dataset.*bits=16"):
        load(tmp_path / "a.tif")


def test_small_labels_of_sixteen_bits_are_read_as_eight(tmp_path: Path) -> None:
    Image.fromarray(np.array([[3, 255]], np.uint16)).save(tmp_path / "a.png")
    labels = load(tmp_path / "a.png")
    assert labels.dtype == np.uint8 and labels.tolist() == [[3, 255]]


def test_eight_bits_are_no_labels_of_a_sixteen_bit_set(tmp_path: Path) -> None:
    Image.fromarray(np.array([[3, 188]], np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png has 8 bits .* 16-bit .*cut off .* converter"):
        load(tmp_path / "a.png", label_bits=16)
    assert load(tmp_path / "a.png", bits=8, label_bits=16).tolist() == [[3, 188]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.eye(3, dtype=np.uint8)[None], "3 values a pixel, as a coloured picture; .* palette"),
        (np.zeros((2, 2), np.float32), "holds float32 numbers"),
        (np.full((2, 2), -1, np.int32), "holds labels -1 to -1 in 32 bits.*convert"),
        (np.full((2, 2), 2**17, np.int32), "holds labels 131072 to 131072.*convert"),
    ],
)
def test_what_is_no_label_map_is_named(tmp_path: Path, array: np.ndarray, message: str) -> None:
    Image.fromarray(array).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=rf"label map .*a\.tif.*{message}"):
        load(tmp_path / "a.tif", bits=16 if array.dtype == np.int32 else 8)


def test_a_photo_of_another_size_is_named(tmp_path: Path) -> None:
    Image.fromarray(np.array(WIDE, np.uint16)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"photo has 5 x 2 pixels .*a\.tif has 4 x 2;"):
        load(tmp_path / "a.tif", bits=16, ori_shape=(2, 5))


def test_settings_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="8 or 16 bits, got bits=32"):
        LoadReadableAnnotations(bits=32)
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "a.png")
    sample = {"seg_map_path": str(tmp_path / "a.png"), "reduce_zero_label": False, "seg_fields": []}
    with pytest.raises(ValueError, match="reduce_zero_label is False in the data set and True"):
        LoadReadableAnnotations(reduce_zero_label=True)(sample)


def test_training_transforms_keep_sixteen_bits() -> None:
    """The published pipeline: resize (Pillow), crop, flip, pad, pack."""
    labels = np.random.default_rng(0).choice([0, 255, 256, 700, 65535], (30, 50)).astype(np.uint16)
    results = {
        "img": np.zeros((30, 50, 3), np.uint8),
        "img_shape": (30, 50),
        "gt_seg_map": labels,
        "seg_fields": ["gt_seg_map"],
    }
    for step in (
        dict(type="ResizeShortestEdgePIL", scale=45, max_size=1333),
        dict(type="RandomCrop", crop_size=(40, 90), cat_max_ratio=1.0),
        dict(type="RandomFlip", prob=1.0),
        dict(type="Pad", size=(90, 90), pad_val=dict(img=128, seg=65535)),
        dict(type="PackSegInputs"),
    ):
        results = TRANSFORMS.build(step)(results)
    packed = results["data_samples"].gt_sem_seg.data.numpy()[0]
    assert packed.dtype == np.int64 and packed.shape == (90, 90)
    assert set(packed[:40, :75].ravel()) == {0, 255, 256, 700, 65535}
    assert set(packed[40:].ravel()) | set(packed[:, 75:].ravel()) == {65535}
    low, high = (
        cv2.resize(byte.astype(np.uint8), (75, 45), interpolation=cv2.INTER_NEAREST).astype(int)
        for byte in (labels % 256, labels // 256)
    )
    resized = (low + 256 * high)[:, ::-1]
    assert any(np.array_equal(packed[:40, :75], resized[top : top + 40]) for top in range(6))


def written(path: Path, labels: Any, mode: str = "") -> Path:
    picture = Image.fromarray(np.array(labels, np.uint8))
    (picture.convert(mode) if mode else picture).save(path)
    return path


@pytest.mark.parametrize("mode", ["", "RGB", "RGBA", "LA", "P"])
@pytest.mark.parametrize("backend", ["pillow", "cv2"])  # of P OpenCV gives the colours, grey here
def test_maps_of_equal_channels_are_maps_of_one(tmp_path: Path, mode: str, backend: str) -> None:
    path = written(tmp_path / "a.png", [[0, 1], [7, 255]], mode)
    step = LoadReadableAnnotations(imdecode_backend=backend)
    sample = {"seg_map_path": str(path), "reduce_zero_label": False, "seg_fields": []}
    assert step(sample)["gt_seg_map"].tolist() == [[0, 1], [7, 255]]


@pytest.mark.parametrize("unlabelled", [11, (11,), (11, 9)])
def test_unlabelled_pixels_become_the_ignored_label(tmp_path: Path, unlabelled: Any) -> None:
    path = written(tmp_path / "a.png", [[0, 1, 9], [10, 11, 255]])
    step = LoadReadableAnnotations(unlabelled=unlabelled)
    sample = {"seg_map_path": str(path), "reduce_zero_label": False}
    nine = 255 if unlabelled == (11, 9) else 9
    loaded = step({**sample, "seg_fields": []})["gt_seg_map"]
    assert loaded.tolist() == [[0, 1, nine], [10, 255, 255]] and loaded.dtype == np.uint8
    reduced = step({**sample, "seg_fields": [], "reduce_zero_label": True})["gt_seg_map"]
    assert reduced.tolist() == [[255, 0, nine if nine == 255 else 8], [9, 255, 255]]


def test_unlabelled_pixels_of_sixteen_bits(tmp_path: Path) -> None:
    Image.fromarray(np.array([[3, 700, 65535]], np.uint16)).save(tmp_path / "a.png")
    step = LoadReadableAnnotations(bits=16, unlabelled=700)
    sample = {"seg_map_path": str(tmp_path / "a.png"), "reduce_zero_label": False}
    assert step({**sample, "seg_fields": []})["gt_seg_map"].tolist() == [[3, 65535, 65535]]


def test_coloured_maps_are_read_by_their_palette(tmp_path: Path) -> None:
    palette = [[200, 0, 0], [0, 0, 7], [5, 5, 5]]
    colours = np.array([*palette, [0, 0, 0], palette[1]], np.uint8)[None]
    Image.fromarray(colours).save(tmp_path / "a.png")
    Image.fromarray(colours).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        step = LoadReadableAnnotations(palette=palette)
        sample = {"seg_map_path": str(tmp_path / name), "reduce_zero_label": False}
        assert step({**sample, "seg_fields": []})["gt_seg_map"].tolist() == [[0, 1, 2, 255, 1]]
    black = LoadReadableAnnotations(palette=[*palette, [0, 0, 0]])
    sample = {"seg_map_path": str(tmp_path / "a.png"), "reduce_zero_label": False}
    assert black({**sample, "seg_fields": []})["gt_seg_map"].tolist() == [[0, 1, 2, 3, 1]]


def test_a_photo_of_no_data_set_has_no_labels_and_one_of_a_data_set_must_have_them() -> None:
    alone = {"img": np.zeros((2, 2, 3), np.uint8), "img_path": "a.png"}
    assert LoadReadableAnnotations()({**alone}) == alone
    listed = {**alone, "seg_fields": [], "reduce_zero_label": False}
    with pytest.raises(
        ValueError, match="no label map is named for a.png: set the data set's data_"
    ):
        LoadReadableAnnotations()(listed)
