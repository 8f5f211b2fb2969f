"""A font that has the characters of a text, wherever it is installed.

matplotlib, which knows the installed fonts, is imported when a text is more than ASCII: it takes a
moment, and most names are.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

#: Comes with matplotlib: Greek, Cyrillic, Arabic, Hebrew, Armenian, Georgian and more.
_DEJAVU = "fonts/ttf/DejaVuSans.ttf"
#: Fonts of this name have a box for every character.
_NO_GLYPHS = "LastResort"


def font_for(text: str, size: int) -> Font:
    """A font of ``size`` pixels for a text.

    Pillow's own for what it has (ASCII), so that pictures look alike everywhere; else matplotlib's
    DejaVu Sans; else the first installed font that has all characters. If none has, a warning says
    once which are missing; they are drawn as boxes.
    """
    size = max(size, 11)
    if text.isascii():
        return ImageFont.load_default(size=size)
    path, _ = font_file(frozenset(text))
    return ImageFont.truetype(path, size)


@contextmanager
def names_in_figures(names: Iterable[str]) -> Iterator[None]:
    """matplotlib's texts made inside fall back on a font that has the characters of ``names``."""
    import matplotlib
    from matplotlib import font_manager

    others = frozenset("".join(names)) - frozenset(map(chr, _characters(next(_candidates()))))
    families = ["DejaVu Sans"]
    if others:
        path, _ = font_file(others)
        families.append(font_manager.FontProperties(fname=path).get_name())
    with matplotlib.rc_context({"font.family": families}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # said once, above
        yield


@lru_cache(maxsize=256)
def font_file(characters: frozenset[str]) -> tuple[str, str]:
    """Path of the first font with all ``characters``, or with most; and those that it lacks."""
    wanted = {ord(c) for c in characters if not c.isspace() and c.isprintable()}
    best, missing = "", wanted
    for path in _candidates():
        lacking = wanted - _characters(path)
        if not best or len(lacking) < len(missing):
            best, missing = path, lacking
        if not missing:
            break
    lost = "".join(chr(code) for code in sorted(missing))
    if lost:
        warnings.warn(
            f"no installed font has the characters {lost}: they are drawn as boxes; install a font "
            "that has them, such as Noto Sans CJK for Chinese, Japanese and Korean",
            stacklevel=2,
        )
    return best, lost


def _candidates() -> Iterator[str]:
    import matplotlib
    from matplotlib import font_manager

    yield str(Path(matplotlib.get_data_path()) / _DEJAVU)
    for entry in font_manager.fontManager.ttflist:
        plain = entry.style == "normal" and entry.weight in (400, "normal", "regular")
        if plain and _NO_GLYPHS not in Path(entry.fname).name:
            yield entry.fname


@cache
def _characters(path: str) -> frozenset[int]:
    """Code points that a font file has; none for a file that cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # listed, but removed or damaged
        return frozenset()
