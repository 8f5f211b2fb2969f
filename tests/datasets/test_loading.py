"""Images that cannot be read are named, in any scope."""

from __future__ import annotations

from pathlib import Path

import mmengine.registry
import mmseg.registry
import numpy as np
import pytest
from PIL import Image

from mmclipdis.datasets.loading import LoadReadableImage


@pytest.mark.parametrize(
    ("registry", "name"),
    [
        (mmengine.registry.TRANSFORMS, "LoadReadableImage"),
        (mmseg.registry.TRANSFORMS, "LoadReadableImage"),
        (mmseg.registry.TRANSFORMS, "mmseg.LoadReadableImage"),
    ],
)
def test_it_is_found_in_the_root_and_from_mmseg(registry, name: str) -> None:
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
