"""Sheets of photos and label maps side by side, with a legend that can be read.

Palette and sheet are our own. mmseg's palettes belong to its data sets, matplotlib's have 20
colours, and torchvision's are for masks: ``draw_segmentation_masks`` takes one a class, which for
150 classes is a hundred times slower than looking colours up. ``make_grid`` has cells of one size
and no words; matplotlib's axes resample a label map, whose pixels are to be seen as they are.
"""

from __future__ import annotations

import colorsys
from bisect import bisect_right
from collections.abc import Sequence
from numbers import Real
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from mmclipdis.utils.fonts import Font, font_for
from mmclipdis.utils.whole_files import write_picture

Colour = Sequence[int]

MARGIN = 8
#: A cell is no wider than so many times its height, and no side of it thinner than a margin.
LONGEST = 8
#: A name of the legend is no wider than so many times the height of its letters.
LONGEST_NAME = 24
TEXT_COLOUR, PAPER = (20, 20, 20), (255, 255, 255)
#: Of pixels without a class.
NO_COLOUR = (225, 225, 225)
#: Hues a golden angle apart stay far from each other however many there are.
_GOLDEN = 0.618033988749895


def class_palette(num_classes: int) -> list[tuple[int, int, int]]:
    """Distinct RGB colours, 0-255, the same for a class index every time."""
    colours = []
    for i in range(num_classes):
        saturation, value = (0.75, 0.95) if i % 2 == 0 else (0.95, 0.65)
        rgb = colorsys.hsv_to_rgb((0.02 + i * _GOLDEN) % 1, saturation, value)
        colours.append((round(rgb[0] * 255), round(rgb[1] * 255), round(rgb[2] * 255)))
    return colours


def colour_labels(
    labels: np.ndarray, palette: Sequence[Colour], ignore_index: int = 255
) -> np.ndarray:
    """Paint a label map (H, W) with RGB colours, uint8 (H, W, 3); ignored pixels are light grey.

    Raises:
        ValueError: a label without a colour.
    """
    labels = np.asarray(labels)
    ignored = labels == ignore_index
    known = np.where(ignored, 0, labels)
    if known.size and (known.min() < 0 or known.max() >= len(palette)):
        raise ValueError(
            f"labels go from {known.min()} to {known.max()}, the palette has {len(palette)} colours"
        )
    picture = np.asarray(palette, dtype=np.uint8)[known]
    picture[ignored] = NO_COLOUR
    return picture


def blend(
    photo: np.ndarray,
    labels: np.ndarray,
    palette: Sequence[Colour],
    opacity: float = 0.6,
    ignore_index: int = 255,
) -> np.ndarray:
    """Lay the colours of a label map (H, W) over its RGB photo (H, W, 3), uint8.

    ``ignore_index`` as in :func:`colour_labels`; -1 where every label is a class.

    Raises:
        ValueError: sizes differ or the opacity is not in [0, 1].
    """
    if photo.shape[:2] != labels.shape:
        raise ValueError(f"photo has {photo.shape[:2]} pixels, labels {labels.shape}")
    if not isinstance(opacity, Real) or not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be a number in [0, 1], got {opacity!r}")
    colours = colour_labels(labels, palette, ignore_index)
    return np.asarray(cv2.addWeighted(photo, 1 - opacity, colours, opacity, 0))


def compose_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    class_names: Sequence[str],
    palette: Sequence[Colour],
    *,
    cell_height: int = 180,
    ignore_index: int = 255,
) -> Image.Image:
    """Arrange pictures in rows and columns, with column titles and a legend below.

    Args:
        rows: one row an image; a cell is an RGB picture, uint8 (H, W, 3), or a label map, integers
            (H, W), which is painted. Cells may differ in size; they are scaled to one height, or,
            if they were wider than 8 times that, to this width.
        titles: one a column.
        class_names: of the label maps; the legend shows the classes that occur in any of them.
        palette: RGB colours, 0-255, of the classes.
        cell_height: height of a row in pixels.
        ignore_index: label that is painted light grey; -1 where every label is a class.

    Raises:
        ValueError: nothing to show, rows of another length than the titles, fewer colours than
            names, or a cell that is neither picture nor label map.
    """
    if not rows or not titles:
        raise ValueError("a sheet needs at least one row and one column")
    if any(len(row) != len(titles) for row in rows):
        lengths = [len(row) for row in rows]
        raise ValueError(f"{len(titles)} titles, but rows have {lengths} cells")
    if len(palette) < len(class_names):
        raise ValueError(f"{len(palette)} colours for {len(class_names)} classes")
    cells = [[_cell(c, palette, cell_height, ignore_index) for c in row] for row in rows]
    title_size, legend_size = cell_height // 12, cell_height // 14
    title_font = font_for("".join(titles), title_size)
    widths = [
        max(*(row[j].width for row in cells), _text_width(title, title_font))
        for j, title in enumerate(titles)
    ]
    width = sum(widths) + MARGIN * (len(widths) + 1)
    header = _line_height(title_font) + MARGIN
    legend = _legend(_present(rows, class_names, ignore_index), palette, legend_size, width)
    height = header + len(rows) * (cell_height + MARGIN) + legend.height + MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    x = MARGIN
    for j, title in enumerate(titles):
        draw.text((x, MARGIN // 2), title, fill=TEXT_COLOUR, font=title_font)
        for i, row in enumerate(cells):
            sheet.paste(row[j], (x, header + i * (cell_height + MARGIN)))
        x += widths[j] + MARGIN
    sheet.paste(legend, (0, height - legend.height))
    return sheet


def draw_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    class_names: Sequence[str],
    palette: Sequence[Colour],
    path: str | Path,
    *,
    cell_height: int = 180,
    ignore_index: int = 255,
) -> Path:
    """Write the sheet of :func:`compose_sheet` to ``path`` and return it."""
    sheet = compose_sheet(
        rows, titles, class_names, palette, cell_height=cell_height, ignore_index=ignore_index
    )
    path = Path(path)
    write_picture(path, sheet)
    return path


def _cell(
    cell: np.ndarray, palette: Sequence[Colour], height: int, ignore_index: int
) -> Image.Image:
    """Return a picture or label map as an image ``height`` pixels high, or lower and as wide."""
    array = np.asarray(cell)
    if array.ndim == 2:
        picture, method = colour_labels(array, palette, ignore_index), Image.Resampling.NEAREST
    elif array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8:
        picture, method = array, Image.Resampling.BICUBIC
    else:
        raise ValueError(
            "a cell must be a picture, uint8 (H, W, 3), or a label map (H, W), got "
            f"{array.dtype} {array.shape}"
        )
    scale = min(height / picture.shape[0], LONGEST * height / picture.shape[1])
    size = (max(round(side * scale), MARGIN) for side in (picture.shape[1], picture.shape[0]))
    return Image.fromarray(np.ascontiguousarray(picture)).resize(tuple(size), method)


def _present(
    rows: Sequence[Sequence[np.ndarray]], class_names: Sequence[str], ignore_index: int
) -> list[tuple[int, str]]:
    """Index and name of the classes that occur in the label maps."""
    maps = [np.asarray(cell) for row in rows for cell in row if np.asarray(cell).ndim == 2]
    found = sorted({int(value) for labels in maps for value in np.unique(labels)})
    return [(i, class_names[i]) for i in found if i != ignore_index and i < len(class_names)]


def _legend(
    entries: Sequence[tuple[int, str]],
    palette: Sequence[Colour],
    size: int,
    width: int,
) -> Image.Image:
    """Draw swatches with names, as many a line as fit into ``width`` pixels; ``size``: of text.

    Long names are cut, or the legend of a large vocabulary is higher than any picture.
    """
    fonts = [font_for(name, size) for _, name in entries]
    line = max(map(_line_height, fonts), default=0) + MARGIN
    room = min(LONGEST_NAME * size, width - line - 2 * MARGIN)
    entries = [
        (index, _cut(name, font, room)) for (index, name), font in zip(entries, fonts, strict=True)
    ]
    positions, x, y = [], MARGIN, 0
    for (_, name), font in zip(entries, fonts, strict=True):
        needed = line + _text_width(name, font) + MARGIN
        if x > MARGIN and x + needed > width:
            x, y = MARGIN, y + line
        positions.append((x, y))
        x += needed
    legend = Image.new("RGB", (width, y + line if entries else 0), PAPER)
    draw = ImageDraw.Draw(legend)
    for (index, name), font, (left, top) in zip(entries, fonts, positions, strict=True):
        side = line - MARGIN
        box = (left, top, left + side, top + side)
        draw.rectangle(box, fill=tuple(palette[index]), outline=TEXT_COLOUR)
        draw.text((left + line, top), name, fill=TEXT_COLOUR, font=font)
    return legend


def _cut(text: str, font: Font, room: int) -> str:
    """The text, or as much of its beginning as fits into ``room`` pixels, and dots."""
    kept = text[: 4 * LONGEST_NAME]  # no font has letters as thin as a quarter of their height
    if kept == text and _text_width(text, font) <= room:
        return text
    beginnings = range(1, len(kept) + 1)
    fits = bisect_right(beginnings, room, key=lambda end: _text_width(f"{kept[:end]}...", font))
    return f"{kept[: max(fits, 1)]}..."


def _text_width(text: str, font: Font) -> int:
    return int(np.ceil(font.getlength(text)))


def _line_height(font: Font) -> int:
    box = font.getbbox("Ag")
    return int(box[3] - min(box[1], 0)) + 2
