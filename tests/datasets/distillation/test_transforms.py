"""Loading of odd files, the views, and the packed sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, pseudo_collate
from PIL import Image

from mmclipdis.datasets.distillation.transforms import DistillViews, LoadPILImage, PackDistillInputs
from tests.datasets.distillation.files import photo, pipeline, pixels, truncate
from tests.paths import REAL_DATA


def load(path: Path, **options):
    results = {"img_path": str(path)}
    return LoadPILImage(**options).transform(results), results


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
def test_images_of_every_mode_become_rgb(mode, tmp_path):
    image = photo(64, 48).convert(mode)
    path = tmp_path / f"image.{'tif' if mode == 'CMYK' else 'png'}"
    image.save(path)
    loaded, _ = load(path)
    assert loaded["pil"].mode == "RGB" and loaded["ori_shape"] == (48, 64)
    assert np.array_equal(np.asarray(loaded["pil"]), np.asarray(image.convert("RGB")))


def test_a_cmyk_jpeg_is_read(tmp_path):
    Image.new("CMYK", (40, 30), (0, 255, 255, 0)).save(tmp_path / "red.jpg")
    loaded, _ = load(tmp_path / "red.jpg")
    assert np.asarray(loaded["pil"])[15, 20].tolist() == pytest.approx([255, 0, 0], abs=3)


def test_transparency_is_dropped(tmp_path):
    Image.fromarray(np.full((20, 20, 4), (10, 20, 30, 0), np.uint8)).save(tmp_path / "clear.png")
    loaded, _ = load(tmp_path / "clear.png")
    assert np.asarray(loaded["pil"])[0, 0].tolist() == [10, 20, 30]


def test_the_exif_orientation_is_not_applied(tmp_path):
    image = photo(64, 48)
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    loaded, _ = load(tmp_path / "turned.png")
    assert loaded["pil"].size == (64, 48)
    assert np.array_equal(np.asarray(loaded["pil"]), pixels(64, 48))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "FileNotFoundError"),
        (b"", "UnidentifiedImageError"),
        (b"no image at all", "UnidentifiedImageError"),
    ],
)
def test_what_is_no_image_gives_none_and_a_reason(content, reason, tmp_path):
    path = tmp_path / "broken.jpg"
    if content is not None:
        path.write_bytes(content)
    loaded, results = load(path)
    assert loaded is None and results["unreadable"].startswith(reason)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp"])
def test_truncated_files_give_none(suffix, tmp_path):
    path = tmp_path / f"image{suffix}"
    photo(64, 48).save(path)
    assert load(path)[0] is not None
    truncate(path)
    loaded, results = load(path)
    assert loaded is None and results["unreadable"]


def test_a_folder_with_the_name_of_an_image_gives_none(tmp_path):
    assert load(tmp_path)[0] is None


def test_images_below_the_least_side_give_none(tmp_path):
    photo(9, 40).save(tmp_path / "nine.png")
    photo(10, 40).save(tmp_path / "ten.png")
    loaded, results = load(tmp_path / "nine.png")
    assert loaded is None and results["unreadable"] == "9x40 pixels"
    assert load(tmp_path / "ten.png")[0]["ori_shape"] == (40, 10)
    assert load(tmp_path / "ten.png", min_side=11)[0] is None


def test_running_out_of_memory_is_not_taken_for_a_broken_image(tmp_path, monkeypatch):
    def out_of_memory(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Image, "open", out_of_memory)
    with pytest.raises(MemoryError):
        load(tmp_path / "image.png")


def test_g10_views_of_a_640_by_480_image():
    image = photo(640, 480)
    results = DistillViews(size=560, proxy_sizes=(490, 560)).transform({"pil": image})
    assert results["image"].shape == (3, 560, 560) and results["img_shape"] == (420, 560)
    assert {side: view.shape for side, view in results["proxies"].items()} == {
        490: (3, 490, 490),
        560: (3, 560, 560),
    }
    content = np.asarray(image.resize((560, 420), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.array_equal(results["image"][:, :420], content)
    assert not results["image"][:, 420:].any()
    assert np.array_equal(results["proxies"][560], results["image"])
    small = np.asarray(image.resize((490, 368), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.array_equal(results["proxies"][490][:, :368], small)
    assert not results["proxies"][490][:, 368:].any()


def test_views_without_proxies():
    assert DistillViews(size=32, proxy_sizes=()).transform({"pil": photo()})["proxies"] == {}


@pytest.mark.parametrize("options", [dict(size=0), dict(proxy_sizes=(490, 0))])
def test_sides_below_one_are_refused(options):
    with pytest.raises(ValueError, match="must be >= 1"):
        DistillViews(**options)


def test_the_packed_sample(tmp_path):
    path = tmp_path / "image.png"
    photo(64, 48).save(path)
    np.random.seed(0)
    sample = Compose(pipeline())({"img_path": str(path), "sample_idx": 7})
    inputs, about = sample["inputs"], sample["data_samples"]
    count = len(inputs["boxes"])
    shapes = {
        key: (tuple(inputs[key].shape), inputs[key].dtype) for key in inputs if key != "proxies"
    }
    assert shapes == {
        "image": ((3, 32, 32), torch.uint8),
        "crops": ((count, 3, 16, 16), torch.uint8),
        "boxes": ((count, 4), torch.float32),
    }
    assert inputs["proxies"][28].shape == (3, 28, 28)
    assert all(inputs[key].is_contiguous() for key in ("image", "crops", "boxes"))
    assert about.metainfo == {
        "img_path": str(path),
        "ori_shape": (48, 64),
        "img_shape": (24, 32),
        "grid": about.grid,
    }
    assert count == min(about.grid[0] * about.grid[1], 20)


def test_samples_collate_to_lists(tmp_path):
    photo(64, 48).save(tmp_path / "image.png")
    chain = Compose(pipeline())
    batch = pseudo_collate([chain({"img_path": str(tmp_path / "image.png")}) for _ in range(2)])
    assert [len(batch["inputs"][key]) for key in ("image", "crops", "boxes")] == [2, 2, 2]
    assert len(batch["inputs"]["proxies"][28]) == 2 and len(batch["data_samples"]) == 2


def test_a_transform_left_out_is_named():
    with pytest.raises(KeyError, match="crops"):
        PackDistillInputs().transform({"image": pixels(), "proxies": {}})


REAL = REAL_DATA / "coco_panoptic_sample/input_images"


@pytest.mark.skipif(not REAL.is_dir(), reason="no COCO photos here")
@pytest.mark.parametrize("name", ["000000142238.jpg", "000000439180.jpg"])
def test_boxes_show_what_their_crops_show_on_real_photos(name):
    """The student's pixels inside a box are those of the teacher's crop, scaled."""
    chain = Compose(pipeline(size=560, proxy=490, crop=224))
    np.random.seed(1)
    inputs = chain({"img_path": str(REAL / name)})["inputs"]
    assert len(inputs["boxes"]) > 1
    for box, crop in zip(inputs["boxes"], inputs["crops"]):
        x0, y0, x1, y1 = (560 * box).round().int().tolist()
        inside = Image.fromarray(inputs["image"][:, y0:y1, x0:x1].permute(1, 2, 0).numpy())
        pixels_of_crop = crop.permute(1, 2, 0).numpy()
        rows, cols = (np.flatnonzero(pixels_of_crop.any(axis=axis).any(axis=-1)) for axis in (1, 0))
        content = Image.fromarray(
            pixels_of_crop[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
        ).resize(inside.size, Image.Resampling.BICUBIC)
        gap = np.abs(np.asarray(inside, np.float32) - np.asarray(content, np.float32)).mean()
        assert gap < 12, (name, box, gap)
