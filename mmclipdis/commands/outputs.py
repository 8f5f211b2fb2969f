"""What is written of results: pictures at once, tables and COCO's json when all is gone through."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmclipdis.commands.progress import Progress, json_text
from mmclipdis.utils.columns import FRAME, PHOTO, columns_of, no_formula
from mmclipdis.utils.whole_files import whole_file

#: Columns of a row that say which photo it is of.
OF_PHOTO = (PHOTO, FRAME)


def plain(result: Any, photo: str) -> dict[str, Any]:
    """A result as a line of JSON has it."""
    height, width = result.size
    rows = [{k: v for k, v in row.items() if k not in OF_PHOTO} for row in result.to_rows()]
    return {"photo": photo, "width": width, "height": height, "results": rows}


def keep(result: Any, photo: str, formats: Sequence[str], progress: Progress, folder: Path) -> None:
    """Write the pictures of a result and note it in ``progress``.

    In this order: what is noted is there.
    """
    name = progress.free_name(result.title)
    if "png" in formats:
        result.save(folder / f"{name}.png")
    if "labels" in formats:
        result.save(folder / "labels" / f"{name}.png", kind="labels")
    entry = {"file": name, **plain(result, photo)}
    if "csv" in formats:
        entry["columns"], entry["rows"] = result.columns(), result.to_rows()
    if "coco" in formats:
        entry["coco"] = result.to_coco()
    progress.add(photo, entry)


def finish(formats: Sequence[str], progress: Progress, folder: Path) -> None:
    """Write the tables and the json of all that is done; each whole or not at all."""
    if "json" in formats:
        with whole_file(folder / "results.jsonl") as file:
            for entry in progress.entries():
                line = {k: entry[k] for k in ("photo", "file", "width", "height", "results")}
                file.write(json_text(line).encode() + b"\n")
    if "csv" in formats:
        columns = columns_of(entry["columns"] for entry in progress.entries())
        with whole_file(folder / "results.csv") as file:
            rows = (row for entry in progress.entries() for row in entry["rows"])
            for text in csv_lines(columns or ["photo"], rows):
                file.write(text.encode(errors="backslashreplace"))
    if "coco" in formats:
        with whole_file(folder / "coco.json") as file:
            for text in _coco(progress):
                file.write(text.encode())


def csv_lines(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Lines of a CSV file, the names of the columns first; no cell is a formula."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: no_formula(value) for key, value in row.items()})
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()


def _coco(progress: Progress) -> Iterator[str]:
    """The json of COCO in pieces, photo by photo, since that of many photos is large."""
    yield '{"images": ['
    for number, entry in enumerate(progress.entries(), start=1):
        image = {**entry["coco"]["images"][0], "id": number, "file_name": entry["photo"]}
        yield (", " if number > 1 else "") + json_text(image)
    yield '],\n"annotations": ['
    categories: Any = []
    note_id = 0
    for number, entry in enumerate(progress.entries(), start=1):
        categories = entry["coco"]["categories"]
        for note in entry["coco"]["annotations"]:
            note_id += 1
            note = {**note, "id": note_id, "image_id": number}
            yield (",\n" if note_id > 1 else "") + json.dumps(note)
    yield f'],\n"categories": {json_text(categories)}}}\n'


def as_text(result: Any, photo: str) -> str:
    """A result for people: the photo, and a line for each row, in columns."""
    rows = [{k: v for k, v in row.items() if k not in OF_PHOTO} for row in result.to_rows()]
    lines = [[_cell(key, value) for key, value in row.items()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([photo, *(f"  {line}".rstrip() for line in padded or ["nothing found"])])


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key == "share":
        return f"{100 * value:.1f} %"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1f}" if key in ("x1", "y1", "x2", "y2") else f"{value:.3f}"
