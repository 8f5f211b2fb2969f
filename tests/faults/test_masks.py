"""Faults of masks: files that are missing, broken, hostile or of another photo, and functions."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from PIL import Image
from torch import Tensor

from mmclipdis.models import MeanShiftMasks
from mmclipdis.models.segmentation.masks import build_masks
from tests.faults.endings import raises
from tests.models.segmentation.fakes import head_cfg
from tests.models.segmentation.test_masks import segmentor

SIZE = (48, 64)
PHOTO = "photos/a.jpg"


def predict(masks: Any, img_path: str | None = PHOTO, image: Tensor | None = None) -> Any:
    """A model whose backbone needs masks, on one photo of 48 x 64 that it gets at 24 x 32."""
    meta = {"img_path": img_path, "ori_shape": SIZE}
    image = torch.zeros(3, 24, 32) if image is None else image
    return segmentor(masks).predict([image], [SegDataSample(metainfo=meta)])


def folder_with(root: Path, name: str, write: Callable[[Path], Any]) -> dict[str, Any]:
    write(root / name)
    return {"type": "MaskFolder", "root": str(root)}


def huge(path: Path) -> None:
    """A head that promises 8 terabytes, and no more."""
    with path.open("wb") as file:
        head = {"descr": "<i8", "fortran_order": False, "shape": (1_000_000, 1_000_000)}
        np.lib.format.write_array_header_1_0(file, head)


def odd_head(path: Path, shape: str) -> None:
    text = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64))


def objects(path: Path) -> None:
    """What runs code when it is read as ``numpy.load(..., allow_pickle=True)`` does."""

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(path.with_name("ran")),)

    np.savez(path, instance_mask=np.array([[Evil()]], object))


def cut_short(path: Path) -> None:
    whole = io.BytesIO()
    np.savez_compressed(whole, instance_mask=np.random.default_rng(0).integers(0, 9, SIZE))
    path.write_bytes(whole.getvalue()[:-300])


def torn_inside(path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros(SIZE, int))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("instance_mask.npy", stream.getvalue()[:500])


def png_of(mode: str) -> Callable[[Path], Any]:
    return lambda path: Image.new(mode, (64, 48)).save(path)


NO_ARRAY = "save an array of integers"
FILES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "another photo's": ("a.npy", lambda p: np.save(p, np.zeros((64, 48), int)), ""),
    "none": ("b.npy", lambda p: np.save(p, np.zeros(SIZE, int)), "no masks of photos/a.jpg: no f"),
    "two": (
        "a.npy",
        lambda p: [np.save(p, np.zeros(SIZE, int)), png_of("L")(p.with_suffix(".png"))],
        "both .*a.npy and a.png are there; .*MaskFolder.suffix",
    ),
    "other key": (
        "a.npz",
        lambda p: np.savez(p, masks=np.zeros(SIZE, int)),
        "has no array 'instance_mask', but masks: say which one it is, MaskFolder.key",
    ),
    "floats": ("a.npy", lambda p: np.save(p, np.zeros(SIZE)), f"holds float64 .*; {NO_ARRAY}"),
    "three axes": (
        "a.npy",
        lambda p: np.save(p, np.zeros((3, *SIZE), int)),
        rf"holds int64 \(3, 48, 64\); {NO_ARRAY}",
    ),
    "words": ("a.npy", lambda p: np.save(p, np.full(SIZE, "sky")), f"holds <U3 .*; {NO_ARRAY}"),
    "no pixels": ("a.npy", lambda p: np.save(p, np.zeros((0, 4), int)), rf"\(0, 4\); {NO_ARRAY}"),
    "records": (
        "a.npy",
        lambda p: np.save(p, np.zeros(SIZE, [("é", int)])),
        "holds no integers|holds .* save an array",
    ),
    "objects": ("a.npz", objects, "holds Python objects, which can run code .* is not read"),
    "negative size": ("a.npy", lambda p: odd_head(p, "(-4, -4)"), NO_ARRAY),
    "code as size": ("a.npy", lambda p: odd_head(p, "(__import__('os'), 4)"), "cannot read"),
    "terabytes": ("a.npy", huge, "1000000 x 1000000 .* more than the limit .*MMCLIPDIS_MAX_PIXELS"),
    "cut short": ("a.npz", cut_short, "cannot read mask file .*a.npz .*; make it again"),
    "torn inside": ("a.npz", torn_inside, "cannot read mask file .*a.npz .*; make it again"),
    "no array": ("a.npy", lambda p: p.write_text("0 0 1"), "cannot read mask file .*a.npy"),
    "empty": ("a.npz", lambda p: p.touch(), "cannot read mask file .*a.npz"),
    "colours": ("a.png", png_of("RGB"), "has 3 channels; the numbers of masks are one"),
    "no picture": ("a.png", lambda p: p.write_text("x"), "cannot read .*a.png as an image"),
    "a jpeg": (
        "a.png",
        lambda p: Image.new("L", (64, 48)).save(p, "JPEG"),
        "a.png is a JPEG, which changes numbers",
    ),
    "too many": (
        "a.npy",
        lambda p: np.save(p, np.arange(240 * 320).reshape(240, 320)),
        "76,800 masks, more than 10,000; leave out the smallest",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_mask_file(case: str, tmp_path: Path) -> None:
    name, write, line = FILES[case]
    line = line or (
        r"mask file .*a.npy has 64 x 48 pixels, the photo 48 x 64 \(height x width\): "
        "of another photo"
    )
    raises(line, predict, folder_with(tmp_path, name, write))
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    masks = {"type": "MaskFolder", "root": str(tmp_path / "x")}
    raises("no folder '.*x' of masks: correct MaskFolder.root, or give", predict, masks)


@pytest.mark.parametrize("img_path", [None, "photo 0", "trip/film.mp4, frame 3"])
def test_a_photo_without_a_file(img_path: str | None, tmp_path: Path) -> None:
    masks = folder_with(tmp_path, "photo 0.npy", lambda p: np.save(p, np.zeros(SIZE, int)))
    raises(
        "by the name of its file, and it has none; give files, or give", predict, masks, img_path
    )


SIZES = {
    "half": ((24, 32), True),
    "rounded": ((25, 33), True),
    "rounded down": ((24, 33), True),
    "larger": ((481, 640), True),
    "a little longer": ((48, 67), False),
    "one row more": ((49, 64), False),
    "turned": ((64, 48), False),
    "larger and longer": ((480, 660), False),
}


@pytest.mark.parametrize("case", SIZES)
def test_sizes_that_a_photo_could_have(case: str, tmp_path: Path) -> None:
    size, fits = SIZES[case]
    masks = folder_with(tmp_path, "a.npy", lambda p: np.save(p, np.zeros(size, np.uint8)))
    if fits:
        predict(masks)
    else:
        raises("of another photo, or turned", predict, masks)


GIVEN: dict[str, tuple[Any, str]] = {
    "nothing": (None, "the masks of photos/a.jpg: got NoneType, no array"),
    "dicts of SAM": ([{"segmentation": np.zeros((24, 32))}], "got list, no array; give integers"),
    "floats": (np.zeros((24, 32), np.float32), "are integers, found float32"),
    "a tensor of floats": (torch.zeros(24, 32), "are integers, found torch.float32"),
    "one mask each": (np.zeros((5, 24, 32), bool), r"two axes \(H, W\) .* found \(5, 24, 32\)"),
    "of another size": (
        np.zeros((32, 24), int),
        r"masks of photos/a.jpg has 32 x 24 pixels, the photo 24 x 32",
    ),
}


@pytest.mark.parametrize("case", GIVEN)
def test_what_a_function_gives(case: str) -> None:
    found, line = GIVEN[case]
    raises(line, predict, lambda photo: found)


def test_an_image_that_something_else_has_normalised() -> None:
    image = torch.full((3, 24, 32), 9.0)
    line = "photos/a.jpg: masks are made of the photo, whose colours must be 0..255 .* 550..750"
    raises(line, predict, lambda photo: photo[..., 0], image=image)
    nan = torch.full((3, 24, 32), float("nan"))
    raises("whose colours must be 0..255", predict, lambda photo: photo[..., 0], image=nan)


SOURCES: dict[str, tuple[Any, str]] = {
    "folder as text": ("masks/", "masks='masks/' is no source of masks: give the model masks=dict"),
    "dict without type": ({"root": "x"}, "is no source of masks"),
    "class": (MeanShiftMasks, "is no source of masks"),
    "no name": ({"type": "MaskFunction", "function": "a.b"}, "'a.b' names no function: write 'pac"),
    "no module": (
        {"type": "MaskFunction", "function": "not_there:f"},
        "No module named 'not_there",
    ),
    "not in it": ({"type": "MaskFunction", "function": "os:f"}, "module 'os' has no attribute 'f'"),
    "no function": ({"type": "MaskFunction", "function": "os:sep"}, "'os:sep' cannot be called"),
    "suffix": ({"type": "MaskFolder", "root": "x", "suffix": ".jpg"}, "suffix='.jpg' must end wit"),
    "root": ({"type": "MaskFolder", "root": None}, "MaskFolder.root=None: give the folder"),
    "key": ({"type": "MaskFolder", "root": "x", "key": 3}, "MaskFolder.key=3: give the name"),
    "option": (
        {"type": "MaskFolder", "root": "x", "keys": 3},
        "unexpected keyword argument 'keys'",
    ),
}


@pytest.mark.parametrize("case", SOURCES)
def test_what_masks_come_from(case: str) -> None:
    masks, line = SOURCES[case]
    raises(line, build_masks, masks)


def test_a_model_that_needs_masks_and_has_no_source() -> None:
    line = r"OpenVocabSegmentor needs the masks of each photo: give the model masks=dict\(type="
    raises(line, predict, None)
    stock = EncoderDecoder(
        backbone={"type": "PatchMeanBackbone"},
        decode_head=head_cfg(num_classes=4),
        test_cfg=ConfigDict(mode="whole"),
    )
    assert not hasattr(stock, "masks")
    config = {
        "type": "EncoderDecoder",
        "backbone": {"type": "PatchMeanBackbone"},
        "decode_head": head_cfg(num_classes=4),
        "masks": {"type": "MeanShiftMasks"},
    }
    raises("unexpected keyword argument 'masks'", MODELS.build, config)
