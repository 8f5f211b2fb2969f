"""What the page shows of a result: picture, legend, table, and a file with all of it."""

from __future__ import annotations

import csv
import html
import io
import json
import zipfile
from pathlib import Path
from typing import Any

from PIL import Image

from mmclipdis.apis.results import Detections, Result, Segmentation
from mmclipdis.apis.results.base import png_bytes
from mmclipdis.utils.columns import no_formula
from mmclipdis.visualization import NO_COLOUR, class_palette

#: Rows that the page's table shows; the file has all.
MOST_ROWS = 300


def picture(result: Result, opacity: float) -> Image.Image:
    """The photo with what was found; of tags, bars beside it.

    Raises:
        ValueError: an opacity outside [0, 1].
    """
    if isinstance(result, Segmentation):
        return result.draw("overlay", opacity=opacity)
    if isinstance(result, Detections):
        return result.draw(opacity=opacity)
    return result.draw()


def legend(result: Result) -> str:
    """HTML with a coloured field, the word and its share or number of boxes; words are escaped."""
    palette = class_palette(len(result.names))
    found: dict[str, str] = {}
    if isinstance(result, Segmentation):
        found = {name: f"{share:.1%}" for name, share in result.shares().items()}
    elif isinstance(result, Detections):
        found = {name: str(count) for name, count in result.counts().items()}
    items = []
    for name, value in found.items():
        number = result.names.index(name) if name in result.names else None
        red, green, blue = NO_COLOUR if number is None else palette[number]
        items.append(
            f'<li><span class="field" style="background:rgb({red},{green},{blue})"></span>'
            f"{html.escape(name)} <small>{value}</small></li>"
        )
    return f'<ul class="legend">{"".join(items)}</ul>' if items else ""


def summary(result: Result) -> str:
    """One line about a result, and what to mind; HTML."""
    rows = len(result.to_rows())
    if not rows:
        return "Nothing was found: lower the least score, or try other words."
    if isinstance(result, Segmentation) and len(result.names) == 1 and rows == 1:
        return "One word and no background: all pixels become it. Add words, or a background."
    if rows > MOST_ROWS:
        return f"The table shows the first {MOST_ROWS} of {rows} rows; the download has all."
    return ""


def table(result: Result) -> dict[str, Any]:
    """Shares, boxes or tags as ``headers`` and ``data``, without the photo's name."""
    rows = [
        {key: _shown(value) for key, value in row.items() if key not in ("photo", "frame")}
        for row in result.to_rows()[:MOST_ROWS]
    ]
    headers = list(rows[0]) if rows else ["name"]
    return {"headers": headers, "data": [list(row.values()) for row in rows]}


def pack(result: Result, opacity: float, folder: Path) -> Path:
    """Write a zip with picture, CSV, COCO json and, of a segmentation, label PNG; return its path.

    Raises:
        OSError: it cannot be written.
    """
    title = result.title
    files = {
        f"{title}_overlay.png": png_bytes(picture(result, opacity)),
        f"{title}_table.csv": _csv(result),
        f"{title}_coco.json": json.dumps(result.to_coco()).encode(),
    }
    if isinstance(result, Segmentation):
        files[f"{title}_labels.png"] = png_bytes(result.draw("labels"))
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{title}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target


def _csv(result: Result) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, result.columns(), lineterminator="\n")
    writer.writeheader()
    for row in result.to_rows():
        writer.writerow({key: no_formula(value) for key, value in row.items()})
    return text.getvalue().encode("utf-8")


def _shown(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value
