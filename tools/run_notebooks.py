#!/usr/bin/env python
"""Runs the notebooks of docs/notebooks and keeps what their cells show, as `make notebooks` does.

python tools/run_notebooks.py                        # all of them, a few minutes on 2 cores
python tools/run_notebooks.py docs/notebooks/A.ipynb # this one

No kernel and no Jupyter are needed: cells are plain Python, and run in this process, in a temporary
folder. Pictures are kept as small JPEGs, where Jupyter keeps PNGs ten times as large.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mmclipdis.apis.cli import run
from mmclipdis.utils.whole_files import write_text

NOTEBOOKS = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
#: Of pictures that are kept: the most pixels of a side, and JPEG's quality.
WIDEST, QUALITY = 860, 82
#: Tag of the cell whose values may be replaced, as papermill has it.
PARAMETERS = "parameters"
#: Where a notebook keeps the hash of the code that its outputs are of.
RUN_OF = "code_sha256"

Notebook = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the notebooks that the command line names, and write them with their outputs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", nargs="*", type=Path, help="all of docs/notebooks by default")
    for path in parser.parse_args(arguments).notebooks or sorted(NOTEBOOKS.glob("*.ipynb")):
        done = execute(read(path), path.name)
        write_text(path, json.dumps(done, indent=1, ensure_ascii=False) + "\n")
        print(f"{path}: {len(code_cells(done))} cells, {path.stat().st_size // 1000} kB")


def read(path: Path) -> Notebook:
    """A notebook, as its json has it."""
    notebook: Notebook = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def code_cells(notebook: Notebook) -> list[dict[str, Any]]:
    """The cells that are code, in order."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def code_hash(notebook: Notebook) -> str:
    """SHA-256 of the code: other outputs belong to other code."""
    sources = ["".join(cell["source"]) for cell in code_cells(notebook)]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def execute(notebook: Notebook, name: str, parameters: Mapping[str, Any] | None = None) -> Notebook:
    """Run all cells in a temporary folder; return the notebook with what they show.

    Args:
        notebook: As :func:`read` gives it; it is not changed.
        name: What it is called in tracebacks.
        parameters: Values that replace those of the cell tagged :data:`PARAMETERS`.

    Raises:
        ValueError: a parameter that this cell does not set.
        Exception: what a cell raises.
    """
    done: Notebook = json.loads(json.dumps(notebook))
    space: dict[str, Any] = {"__name__": "__main__"}
    with tempfile.TemporaryDirectory() as folder, _inside(folder):
        for number, cell in enumerate(code_cells(done), start=1):
            cell["outputs"] = _run(cell, space, f"{name}, cell {number}", number)
            cell["execution_count"] = number
            if PARAMETERS in cell["metadata"].get("tags", ()):
                unknown = sorted(set(parameters or {}) - set(space))
                if unknown:
                    raise ValueError(f"{name} has no parameter {unknown[0]!r}")
                space.update(parameters or {})
    done["metadata"][RUN_OF] = code_hash(done)
    return done


@contextlib.contextmanager
def _inside(folder: str) -> Iterator[None]:
    """Work in a folder, then again where it was."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _run(cell: Mapping[str, Any], space: dict[str, Any], name: str, number: int) -> list[Any]:
    """Run a cell; its outputs: what is printed, displayed, and the value of its last line."""
    outputs: list[Any] = []
    printed = io.StringIO()

    def flush() -> None:
        if text := printed.getvalue():
            outputs.append({"output_type": "stream", "name": "stdout", "text": _lines(text)})
        printed.seek(0)
        printed.truncate()

    def display(*values: Any) -> None:
        flush()
        outputs.extend(_shown(value, "display_data") for value in values)

    space["display"] = display  # Jupyter's
    tree = ast.parse("".join(cell["source"]), name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, name, "exec"), space)
        value = None
        if last is not None:
            value = eval(compile(ast.Expression(last.value), name, "eval"), space)
    flush()
    if value is not None:
        outputs.append({**_shown(value, "execute_result"), "execution_count": number})
    return outputs


def _shown(value: Any, kind: str) -> dict[str, Any]:
    """A value as an output: its text, and its picture if it draws one."""
    data: dict[str, Any] = {"text/plain": _lines(repr(value))}
    draw: Callable[[], Any] | None = getattr(value, "_repr_png_", None)
    if draw is not None:
        data["image/jpeg"] = _jpeg(draw())
    if isinstance(value, Image.Image):  # its repr tells an address of memory
        data["text/plain"] = [f"<picture of {value.width} x {value.height}>"]
    return {"output_type": kind, "metadata": {}, "data": data}


def _jpeg(png: bytes) -> str:
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.thumbnail((WIDEST, WIDEST), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=QUALITY, optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


if __name__ == "__main__":
    run(main, None)
