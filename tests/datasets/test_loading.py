"""Images that cannot be read are named, in any scope."""

from __future__ import annotations

from pathlib import Path

import mmcv
import mmdet.registry
import mmengine.registry
import mmseg.registry
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from mmclipdis.datasets.loading import LoadReadableImage
from tests.utils.test_pictures import png_head


@pytest.mark.parametrize(
    ("registry", "name"),
    [
        (mmengine.registry.TRANSFORMS, "LoadReadableImage"),
        (mmseg.registry.TRANSFORMS, "LoadReadableImage"),
        (mmseg.registry.TRANSFORMS, "mmseg.LoadReadableImage"),
        (mmseg.registry.TRANSFORMS, "LoadImageFromFile"),
        (mmdet.registry.TRANSFORMS, "LoadReadableImage"),
        (mmdet.registry.TRANSFORMS, "LoadImageFromFile"),
    ],
)
def test_it_is_found_in_the_root_and_by_the_name_mm_tools_look_for(registry, name: str) -> None:
    assert registry.get(name) is LoadReadableImage


def test_an_image_is_bgr(tmp_path: Path) -> None:
    Image.new("RGB", (4, 2), (255, 20, 3)).save(tmp_path / "a.png")
    loaded = LoadReadableImage().transform(dict(img_path=str(tmp_path / "a.png")))
    assert loaded["img"].shape == (2, 4, 3) and loaded["img"].dtype == np.uint8
    assert loaded["img"][0, 0].tolist() == [3, 20, 255] and loaded["ori_shape"] == (2, 4)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n nothing"])
def test_broken_images_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot read .*x.png as an image; replace or remove it"):
        LoadReadableImage().transform(dict(img_path=str(path)))
    with pytest.raises(FileNotFoundError, match="no image at .*y.png"):
        LoadReadableImage().transform(dict(img_path=str(tmp_path / "y.png")))


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png_head(15000, 15000))
    monkeypatch.setattr(mmcv, "imfrombytes", None)
    with pytest.raises(ValueError, match=r"x\.png has 15000 x 15000 = 225,000,000 pixels, more"):
        LoadReadableImage().transform(dict(img_path=str(path)))
    with pytest.raises(ValueError, match=r"more than the limit of 10, and is not decoded"):
        LoadReadableImage(max_pixels=10).transform(dict(img_path=str(path)))


@pytest.mark.parametrize("options", [{}, {"to_float32": True}, {"color_type": "grayscale"},
                                     {"imdecode_backend": "pillow"}])  # fmt: skip
def test_images_are_those_of_mmcv(tmp_path: Path, options: dict) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8)).save(tmp_path / "a.jpg")
    given, expected = {"img_path": str(tmp_path / "a.jpg")}, {"img_path": str(tmp_path / "a.jpg")}
    LoadReadableImage(**options).transform(given)
    LoadImageFromFile(**options).transform(expected)
    assert np.array_equal(given.pop("img"), expected.pop("img")) and given == expected


def test_empty_files_are_passed_over_on_demand(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    loader = LoadReadableImage(ignore_empty=True)
    assert loader.transform({"img_path": str(tmp_path / "a.png")}) is None
    assert loader.transform({"img_path": str(tmp_path / "none.png")}) is None
