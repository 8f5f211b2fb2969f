"""Which classes a photo shows, from a plain list: a photo a line with its names, or a table."""

from __future__ import annotations

import csv
import difflib
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import DATASETS

from mmclipdis.datasets.recognition.coco import MultiLabelDataset, select_classes
from mmclipdis.utils.names import name_list
from mmclipdis.utils.paths import check_samples

#: What the first column is called where a list has a head, without ``_``, ``-`` and blanks.
HEADS = (
    *("file", "filename", "filepath", "path", "photo", "img", "imgid", "imgname", "imgpath"),
    *("image", "imagefile", "imagefilename", "imageid", "imagename", "imagepath"),
)
#: Cells of a table.
VALUES = {"1": 1, "1.0": 1, "true": 1, "yes": 1, "-1": -1, "-1.0": -1}
VALUES |= {"0": 0, "0.0": 0, "false": 0, "no": 0, "": 0}


@dataclass
class Listed:
    """What a list says.

    Attributes:
        classes: Names in the list, in the order of a table's head, else sorted.
        labels: Photo -> name -> 1, 0 or -1; a name that is not there is absent.
        lines: Photo -> its (first) line in the list, from 1.
    """

    classes: list[str]
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)


@DATASETS.register_module()
class MultiLabelListDataset(MultiLabelDataset):
    """Labels from a list, ``.csv`` or ``.txt``, of photos and what they show.

    One photo a line, then its names::

        beach.jpg, sand, water
        "a, b.jpg", kite
        empty.jpg

    or a table with a head, 1 (yes) present, 0 (no, empty) absent, -1 unknown, as Roboflow has it::

        filename, kite, sand, water
        beach.jpg, 0, 1, 1

    Columns are separated by commas, semicolons or tabs; what contains one stands in ``"..."``. A
    photo may have several lines of names; their names are joined. A head of the first kind
    (``file, labels``) is left out.

    Args:
        ann_file: the list.
        img_suffix: put behind the names of the photos, for lists without endings.
        metainfo: ``dict(classes=...)`` selects classes and gives their order; without it the
            classes are those of the table's head, or all names of the list, sorted. Give it where
            training and test lists may not show the same classes.
        **kwargs: see :class:`~mmclipdis.datasets.recognition.coco.MultiLabelDataset`.

    Raises:
        FileNotFoundError: no such list or folder.
        ValueError: the list is empty or no UTF-8 text, a cell of a table is no label, a photo has
            two lines in a table, or ``metainfo`` selects a class that the list does not have.
    """

    #: The list is none of bare names.
    list_has_columns = True

    def __init__(self, ann_file: str, *args: Any, img_suffix: str = "", **kwargs: Any) -> None:
        self.img_suffix = img_suffix
        super().__init__(ann_file, *args, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the list into ``img_path``, ``img_id`` and ``gt_score`` of every photo."""
        folder = self.check_folder("img_path")
        listed = read_labels(self.ann_file)
        chosen = self._metainfo.get("classes")
        if chosen is None:
            classes = select_classes(listed.classes, None, self.ann_file)
        else:
            where = f"metainfo['classes'] (of {self.ann_file})"
            classes = name_list(chosen, where)
            _check_names(listed, classes, self.ann_file)
        self._metainfo["classes"] = classes
        items = [
            {
                "img_path": os.path.join(folder, photo + self.img_suffix),
                "img_id": photo,
                "gt_score": np.array([labels.get(name, 0) for name in classes], np.int8),
            }
            for photo, labels in listed.labels.items()
        ]
        check_samples(self, items)
        return items


def _check_names(listed: Listed, classes: Sequence[str], source: str) -> None:
    """Refuse names that are no class: mistyped, they would count as absent."""
    for photo, labels in listed.labels.items():
        for name in labels:
            if name not in classes:
                close = difflib.get_close_matches(name, classes, n=2)
                hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "add it there"
                raise ValueError(
                    f"{source}, line {listed.lines[photo]}: {name!r} is none of the "
                    f"{len(classes)} names of metainfo['classes']; {hint}"
                )


def read_labels(path: str | Path) -> Listed:
    """Read a list of photos and labels, see :class:`MultiLabelListDataset`.

    Raises:
        FileNotFoundError, ValueError: as there.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no list {str(path)!r}; set ann_file, or data_root above it")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error.reason}); save it as UTF-8") from error
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=_delimiter(text), skipinitialspace=True)
    rows = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}; save it as CSV") from error
    if not rows:
        raise ValueError(f"{path} lists no photo; write one a line: file, name, name")
    head = rows[0][1]
    if re.sub(r"[\s_-]", "", head[0].lower()) in HEADS:
        rows = rows[1:]
        cells = [cell.lower() for _, row in rows for cell in row[1:] if cell]
        if len(head) > 1 and 2 * sum(cell in VALUES for cell in cells) > len(cells):
            return _of_table(path, head[1:], rows)
    return _of_lines(path, rows)


def _delimiter(text: str) -> str:
    """The separator of the first line that has one."""
    for line in text.splitlines():
        for one in ("\t", ",", ";"):
            if one in line:
                return one
    return ","


def _of_table(path: Path, classes: list[str], rows: list[tuple[int, list[str]]]) -> Listed:
    found = Listed(list(name_list(classes, f"the head of {path}")))
    for number, (photo, *cells) in rows:
        if len(cells) != len(classes):
            raise ValueError(
                f"{path}, line {number}: {len(cells)} cells for the {len(classes)} classes of the "
                "head; a table has one each"
            )
        wrong = [cell for cell in cells if cell.lower() not in VALUES]
        if wrong:
            raise ValueError(
                f"{path}, line {number}: the cell {wrong[0]!r} of {photo!r} is no label; a table "
                "has 1 (present), 0 (absent) or -1 (unknown)"
            )
        if photo in found.labels:
            raise ValueError(
                f"{path}, line {number}: {photo!r} has a line already, {found.lines[photo]}; "
                "remove one"
            )
        found.labels[photo] = {n: VALUES[c.lower()] for n, c in zip(classes, cells)}
        found.lines[photo] = number
    return found


def _of_lines(path: Path, rows: list[tuple[int, list[str]]]) -> Listed:
    found = Listed([])
    for number, (photo, *names) in rows:
        if not photo:
            raise ValueError(f"{path}, line {number} names no photo; write: file, name, name")
        labels = found.labels.setdefault(photo, {})
        found.lines.setdefault(photo, number)
        labels |= {name: 1 for name in names if name}
    found.classes = sorted({name for labels in found.labels.values() for name in labels})
    if not found.classes:
        raise ValueError(f"{path} names no class behind its photos; write: file, name, name")
    numbers = [name for name in found.classes if name in VALUES]
    if len(numbers) == len(found.classes):
        raise ValueError(
            f"{path} is a table without head: its classes would be called {', '.join(numbers)}; "
            "write a first line: filename, NAME, NAME"
        )
    return found
