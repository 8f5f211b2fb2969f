"""Sizes from heads of pictures, and the limit of pixels before anything is decoded."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import pytest
from PIL import Image

from mmclipdis.utils.pictures import (
    LIMIT_VARIABLE,
    TooManyPixelsError,
    check_pixels,
    open_picture,
    picture_size,
    pixel_limit,
    quick_size,
)


def png_head(width: int, height: int) -> bytes:
    """A PNG that says its size and has no pixels: whoever decodes it fails in another way."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b""
    for kind, data in ((b"IHDR", head), (b"IDAT", b""), (b"IEND", b"")):
        chunks += struct.pack(">I", len(data)) + kind + data
        chunks += struct.pack(">I", zlib.crc32(kind + data))
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIMIT_VARIABLE, raising=False)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "ppm", "tif", "webp"])
def test_the_size_is_read_of_every_format_from_file_and_content(tmp_path: Path, suffix: str):
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (7, 5)).save(path)
    assert picture_size(path) == picture_size(str(path)) == (7, 5)
    assert picture_size(path.read_bytes()) == check_pixels(path) == (7, 5)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"exif": b"Exif\0\0" + bytes(500)}, {"comment": b"\xff\xc0" * 9},
     {"icc_profile": bytes(70000)}],
    ids=lambda options: "".join(options) or "plain",
)  # fmt: skip
def test_the_quick_look_at_a_jpeg_sees_what_pillow_sees(tmp_path: Path, mode: str, options: dict):
    path = tmp_path / "a.jpg"
    Image.new(mode, (700, 5)).save(path, **options)
    content = path.read_bytes()
    assert quick_size(content) == picture_size(content) == (700, 5)


def test_the_quick_look_leaves_what_is_odd_to_pillow(tmp_path: Path):
    Image.new("RGB", (7, 5)).save(tmp_path / "a.jpg")
    jpeg = (tmp_path / "a.jpg").read_bytes()
    frame = jpeg.index(b"\xff\xc0")
    for odd in (
        *(jpeg[: frame + 8], jpeg[:2] + b"\xff" + jpeg[2:], jpeg[:2] + b"\0" + jpeg[2:]),
        *(jpeg[:2], png_head(0, 5), png_head(7, 5)[:20], b"", b"GIF89a\7\0\5\0"),
    ):
        assert quick_size(odd) is None
    assert quick_size(png_head(7, 5)) == (7, 5)


def test_the_size_is_that_before_the_exif_turn(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (7, 5)).save(tmp_path / "a.jpg", exif=exif)
    assert picture_size(tmp_path / "a.jpg") == (7, 5)


def test_any_size_is_told_without_a_warning_and_pillow_keeps_its_own_limit():
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert picture_size(png_head(30000, 20000)) == (30000, 20000)
        assert picture_size(png_head(9500, 10000)) == (9500, 10000)  # Pillow warns of 95 million
    assert before == Image.MAX_IMAGE_PIXELS


def test_the_limit_is_100_million_and_the_message_says_what_to_do(tmp_path: Path):
    assert check_pixels(png_head(10000, 10000)) == (10000, 10000)
    path = tmp_path / "bomb.png"
    path.write_bytes(png_head(15000, 15000))
    with pytest.raises(TooManyPixelsError) as caught:
        check_pixels(path)
    assert str(caught.value) == (
        f"{path} has 15000 x 15000 = 225,000,000 pixels, more than the limit of 100,000,000, and "
        "is not decoded; make it smaller, or raise the limit by MMCLIPDIS_MAX_PIXELS=225000000"
    )


def test_the_limit_is_set_by_the_environment_or_the_caller(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(LIMIT_VARIABLE, "2.25e8")
    assert check_pixels(png_head(15000, 15000)) == (15000, 15000)
    monkeypatch.setenv(LIMIT_VARIABLE, "34")
    with pytest.raises(TooManyPixelsError, match="photo 7 has 7 x 5 = 35 pixels"):
        check_pixels(png_head(7, 5), name="photo 7")
    assert check_pixels(png_head(7, 5), limit=35) == (7, 5)


@pytest.mark.parametrize("text", ["many", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_no_number_of_pixels_is_an_error(monkeypatch, text: str):
    monkeypatch.setenv(LIMIT_VARIABLE, text)
    with pytest.raises(ValueError, match=f"MMCLIPDIS_MAX_PIXELS='{text}' must be a number"):
        pixel_limit()


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"no picture"], ids=repr)
def test_a_broken_head_is_named(tmp_path: Path, content: bytes):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot read .*a.png as an image; replace or remove it"):
        check_pixels(path)


def test_postscript_which_pillow_would_give_to_ghostscript_is_no_picture(tmp_path: Path):
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (7, 5)).save(path, format="EPS")
    with pytest.raises(ValueError, match="cannot read .*photo.jpg as an image"):
        picture_size(path)


def test_files_that_the_system_does_not_give_keep_their_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        picture_size(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError), open_picture(tmp_path):
        pass


def test_what_the_limit_allows_pillow_decodes_without_a_word(tmp_path: Path, monkeypatch):
    """Pillow's own limit is lower: an error above twice of it, a warning above it."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    path = tmp_path / "a.png"
    Image.new("L", (10, 7)).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_picture(path) as picture:
            assert picture.convert("RGB").size == (10, 7)
        with Image.open(path) as picture:  # as mmcv opens what was checked before
            picture.load()
