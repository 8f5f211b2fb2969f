"""What visitors of the page give: words, a background, a photo; each is read with suspicion.

Nothing that is typed in is ever taken for a file or for the name of a data set.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import ImageOps

from mmclipdis.utils.pictures import open_picture, picture_size, pixel_limit, to_rgb

NO_WORDS = "no words: say what to look for, such as: grass, sand, kite"
NO_PHOTO = "no photo: upload one, paste one, or click one of the examples"
#: Words, and letters of all of them together, that one search may have.
MOST_WORDS, MOST_LETTERS = 200, 10_000
#: A part of a text between commas, of which those in brackets separate synonyms.
_PART = re.compile(r"\s*\[[^\]]*\]|[^,]+")


def read_typed_words(text: str | None) -> list[list[str]]:
    """The words that were typed, each with its synonyms: ``'sky, car; van'`` or ``[car, van]``.

    Words stand between commas, or between points with blanks around them; of several lines each is
    a word, and commas stand between its synonyms, as in a file of words.

    Raises:
        ValueError: no words, or too many.
    """
    text = (text or "").strip()
    if len(text) > MOST_LETTERS:
        raise ValueError(f"the words have {len(text):,} letters; the page takes {MOST_LETTERS:,}")
    parts = text.split("\n") if "\n" in text else _PART.findall(re.sub(r"\s+\.\s+", ",", text))
    groups = [re.split(r"[,;]", part.strip().strip("[]")) for part in parts]
    words = [[" ".join(name.split()) for name in group if name.strip()] for group in groups]
    words = [names for names in words if names]
    if not words:
        raise ValueError(NO_WORDS)
    if len(words) > MOST_WORDS:
        raise ValueError(f"{len(words)} words; the page looks for {MOST_WORDS} at once")
    return words


def read_typed_background(text: str | None) -> list[str] | float | None:
    """Words of a background, or the least probability, or None for an empty text."""
    text = (text or "").strip(" ,;\n")
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return [name for names in read_typed_words(text) for name in names]


def read_uploaded_photo(file: Path, name: str, most_pixels: int) -> np.ndarray:
    """RGB uint8 (H, W, 3) of an upload, turned as its EXIF tag says.

    Args:
        file: Where it lies.
        name: What the visitor calls it.
        most_pixels: More are refused before they are decoded.

    Raises:
        ValueError: it is no photo, or has too many pixels.
    """
    content = file.read_bytes()
    width, height = picture_size(content, name)
    most = min(most_pixels, pixel_limit())
    if width * height > most:
        raise ValueError(
            f"{name} has {width} x {height} = {width * height:,} pixels, and this page takes "
            f"{most:,}; make it smaller"
        )
    with open_picture(content, most, name) as picture:
        try:
            upright = ImageOps.exif_transpose(picture)
            upright.load()
        except MemoryError:
            raise
        except Exception as error:  # a broken picture raises nearly anything
            raise ValueError(f"cannot read {name} as an image: it is broken") from error
        return np.ascontiguousarray(to_rgb(upright, name))


def clean_name(name: str | None) -> str:
    """A file name of a visitor as a plain one: without folders, odd marks, and not long."""
    base = re.split(r"[\\/]", name or "")[-1]
    kept = re.sub(r"[^\w.-]+", "_", base).strip("._-")
    return kept[-60:].strip("._-") or "photo"
