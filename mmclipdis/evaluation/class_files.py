"""Where the results of every class go: CSV, a picture of the confusions, the visualizer."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from mmengine.logging import MessageHub, print_log
from mmengine.visualization import Visualizer
from numpy.typing import ArrayLike, NDArray

from mmclipdis.utils.columns import no_formula
from mmclipdis.utils.whole_files import make_folder, write_text

Columns = Mapping[str, ArrayLike]


class ClassFiles:
    """Writes results by class where the user wants them.

    Args:
        per_class: CSV with one row a class.
        confusion_matrix: CSV with the counts, or a picture (``.png``, ``.pdf``, ...) with the
            shares of each row; several are a list.
        visualize: Give the numbers of every class, and the picture, to the backends of the run's
            visualizer (``TensorboardVisBackend``, ...).

    Raises:
        ValueError: nothing is to be written, a file has an ending of another kind, or two results
            have one file.
        OSError: a folder cannot be made, or stands where a file is to be written.
    """

    def __init__(
        self,
        per_class: str | None = None,
        confusion_matrix: str | Sequence[str] | None = None,
        visualize: bool = False,
    ) -> None:
        several = [confusion_matrix] if isinstance(confusion_matrix, str) else confusion_matrix
        self.matrices = [Path(path) for path in several or ()]
        self.table = None if per_class is None else Path(per_class)
        self.visualize = visualize
        if self.table is None and not self.matrices and not visualize:
            raise ValueError(
                "nothing to write: set per_class='FILE.csv', confusion_matrix='FILE.csv' (or "
                ".png), or visualize=True for TensorBoard"
            )
        if self.table is not None and not _is_csv(self.table):
            raise ValueError(f"cannot write per_class={str(self.table)!r}: end it with .csv")
        for path in self.matrices:
            if not _is_csv(path):
                from mmclipdis.utils.figures import check_picture_name  # matplotlib takes a while

                check_picture_name(path)
        files = [*filter(None, [self.table]), *self.matrices]
        for place, path in enumerate(files):  # not after hours
            if path in files[:place]:
                raise ValueError(f"two results would be written to {str(path)!r}; name two files")
            if path.is_dir():
                raise IsADirectoryError(f"{str(path)!r} is a folder; name a file in it")
            make_folder(path.parent)

    def write(
        self,
        columns: Columns,
        names: Sequence[str],
        matrix: NDArray[np.int64] | None = None,
        last: tuple[str, str] = ("", ""),
        title: str = "",
    ) -> None:
        """Write what was asked for.

        Args:
            columns: Name -> values (C,) or texts; what is nan stays empty.
            names: Of the C classes.
            matrix: Counts (C + 1, C + 1) or (C, C + 1), rows labelled, columns predicted; None
                where there is none.
            last: What the rows and the columns behind the classes are called.
            title: Of the picture.
        """
        if self.table is not None:
            write_text(self.table, table_text(columns, names))
            print_log(f"results of {len(names)} classes: {self.table}", logger="current")
        if self.visualize:
            visualizer, step = _visualizer()
            visualizer.add_scalars(scalars(columns, names), step=step)
        if matrix is None:
            return
        rows, shown = [*names, last[0]][: len(matrix)], [*names, last[1]]
        for path in self.matrices:
            if _is_csv(path):
                write_text(path, matrix_text(matrix, rows, shown))
            else:
                from mmclipdis.evaluation.confusion_figure import draw_confusion

                draw_confusion(matrix, rows, shown, title, path)
            print_log(f"confusion matrix: {path}", logger="current")
        if self.visualize:
            from mmclipdis.evaluation.confusion_figure import confusion_picture

            picture = confusion_picture(matrix, rows, shown, title)
            visualizer.add_image("confusion_matrix", picture, step)


def _visualizer() -> tuple[Visualizer, int]:
    """The run's visualizer, and how many iterations of training are done."""
    try:
        visualizer = Visualizer.get_current_instance()
    except RuntimeError as error:
        raise RuntimeError(
            "visualize=True needs a visualizer, and this program has none: run it by a Runner with "
            "visualizer=dict(type='Visualizer', vis_backends=[dict(type='TensorboardVisBackend')])"
            ", or leave visualize out"
        ) from error
    done = MessageHub.get_current_instance().get_info("iter")
    return visualizer, 0 if done is None else int(done) + 1


def scalars(columns: Columns, names: Sequence[str]) -> dict[str, float]:
    """``COLUMN/CLASS`` -> number, of the columns with numbers; what is nan is left out."""
    found: dict[str, float] = {}
    for column, values in columns.items():
        array = np.asarray(values)
        if array.dtype.kind == "f":
            found |= {f"{column}/{n}": float(v) for n, v in zip(names, array) if not math.isnan(v)}
    return found


def table_text(columns: Columns, names: Sequence[str]) -> str:
    """CSV with a row a class; names are quoted where they must be, floats have four decimals.

    A name that a spreadsheet would take for a formula (``=...``, ``+``, ``-``, ``@``) gets an
    apostrophe in front: names come from files that anybody may have made.
    """
    cells = [[_cell(value) for value in np.asarray(values).tolist()] for values in columns.values()]
    return _csv([["class", *columns], *([name, *row] for name, *row in zip(names, *cells))])


def matrix_text(matrix: NDArray[np.int64], rows: Sequence[str], columns: Sequence[str]) -> str:
    """CSV with counts: a row for each labelled class, a column for each predicted one."""
    body = ([name, *counts] for name, counts in zip(rows, matrix.tolist()))
    return _csv([["labelled \\ predicted", *columns], *body])


def _csv(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([no_formula(c) for c in row] for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.4f}"


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"
