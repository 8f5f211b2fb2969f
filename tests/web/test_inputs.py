"""What visitors give is read with suspicion: nothing typed is a file, and no bomb is decoded."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmclipdis.web import inputs
from mmclipdis.web.inputs import (
    clean_name,
    read_typed_background,
    read_typed_words,
    read_uploaded_photo,
)
from tests.faults.endings import raises


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("grass, sand", [["grass"], ["sand"]]),
        ("sky, car; van", [["sky"], ["car", "van"]]),
        ("car; van", [["car", "van"]]),
        ("sky, [car, van], road", [["sky"], ["car", "van"], ["road"]]),
        ("sky\n red  apple \n", [["sky"], ["red apple"]]),
        ("sky, heaven\ncar; van\n", [["sky", "heaven"], ["car", "van"]]),
        ("kite . red apple", [["kite"], ["red apple"]]),
        ("St. Bernard,,", [["St. Bernard"]]),
    ],
)
def test_words_are_read_as_they_are_typed(text, words):
    assert read_typed_words(text) == words


def test_no_word_is_ever_a_file_or_a_data_set(tmp_path):
    file = tmp_path / "secret.txt"
    file.write_text("password")
    assert read_typed_words(str(file)) == [[str(file)]]
    assert read_typed_words("voc20") == [["voc20"]]
    assert read_typed_background(str(file)) == [str(file)]


@pytest.mark.parametrize("text", ["", "  ", " , ; ", "[]", None])
def test_no_words_is_a_line(text):
    raises("^no words: say what to look for", read_typed_words, text)


def test_too_many_words_or_letters_are_a_line():
    raises("201 words; the page looks for 200", read_typed_words, ",".join(map(str, range(201))))
    raises("10,001 letters", read_typed_words, "x" * 10_001)


def test_a_background_is_words_or_a_number_or_nothing():
    assert read_typed_background(" floor, wall; ceiling") == ["floor", "wall", "ceiling"]
    assert read_typed_background("0.4") == 0.4
    assert read_typed_background(" ") is None


def test_a_photo_is_turned_as_its_tag_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (6, 4), (200, 0, 0)).save(tmp_path / "a.jpg", exif=exif)
    assert read_uploaded_photo(tmp_path / "a.jpg", "a.jpg", 100).shape == (6, 4, 3)


def test_an_upload_that_is_no_image_or_broken_is_a_line(tmp_path):
    file = tmp_path / "a.png"
    file.write_text("<svg onload=alert(1)>")
    raises("^cannot read a.png as an image", read_uploaded_photo, file, "a.png", 100)
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "PNG")
    file.write_bytes(content.getvalue()[:-1500])
    raises("^cannot read a.png as an image", read_uploaded_photo, file, "a.png", 10_000)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose head promises that many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [5_000, 60_000])
def test_a_decompression_bomb_is_a_line_and_is_not_decoded(tmp_path, side, monkeypatch):
    monkeypatch.setattr(inputs, "open_picture", lambda *_: pytest.fail("it was decoded"))
    file = tmp_path / "bomb.png"
    file.write_bytes(bomb(side, side))
    line = rf"bomb.png has {side} x {side} = .* pixels, and this page takes 16,000,000"
    before = Image.MAX_IMAGE_PIXELS
    raises(line, read_uploaded_photo, file, "bomb.png", 16_000_000)
    assert before == Image.MAX_IMAGE_PIXELS


def saved(folder: Path, picture: Image.Image, name: str, **options: Any) -> Path:
    picture.save(folder / name, **options)
    return folder / name


def test_photos_of_all_kinds_are_read_as_rgb(tmp_path):
    ramp = np.arange(0, 240, 2, dtype=np.uint8).reshape(10, 12)
    grey = Image.fromarray(ramp)
    files = {
        "deep.png": saved(tmp_path, Image.fromarray(ramp.astype(np.uint16) * 256 + 7), "deep.png"),
        "alpha.png": saved(tmp_path, grey.convert("RGBA"), "alpha.png"),
        "palette.png": saved(tmp_path, grey.convert("P"), "palette.png"),
        "moving.gif": saved(
            tmp_path, grey, "moving.gif", save_all=True, append_images=[Image.new("L", (12, 10))]
        ),
    }
    for name, file in files.items():
        photo = read_uploaded_photo(file, name, 200)
        np.testing.assert_array_equal(photo, np.stack([ramp] * 3, -1), name)
        assert photo.dtype == np.uint8
    file = saved(tmp_path, grey.convert("CMYK"), "print.jpg", quality=100)
    np.testing.assert_allclose(read_uploaded_photo(file, "print.jpg", 200)[..., 0], ramp, atol=4)


def test_numbers_of_unknown_range_are_a_line(tmp_path):
    file = saved(tmp_path, Image.new("F", (4, 4)), "depth.tif")
    raises("^cannot read depth.tif as .* float32", read_uploaded_photo, file, "depth.tif", 100)


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("beach 1.jpg", "beach_1.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\a.png", "a.png"),
        ("<img src=x onerror=alert(1)>.png", "img_src_x_onerror_alert_1_.png"),
        ("..", "photo"),
        ("\n\0", "photo"),
        (None, "photo"),
        ("Übung.png", "Übung.png"),
    ],
)
def test_hostile_names_become_plain_ones(name, clean):
    assert clean_name(name) == clean
    long = clean_name("a" * 500 + ".png")
    assert len(long) == 60
    assert Path(long).suffix == ".png"
