"""One file for all tests of a module: writing ONNX takes seconds."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mmclipdis.export import export
from tests.export.tiny import segmentor

#: Classes of the file.
NAMES = ["grass", ["sand", "beach"], "apple"]


@dataclass(frozen=True)
class Exported:
    """A segmentor, its ONNX for images of any size, and what was printed."""

    model: Any
    path: Path
    printed: str


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    model = segmentor(layers=1)
    path = tmp_path_factory.mktemp("exported") / "shapes.onnx"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert export(model, NAMES, path) == path
    return Exported(model, path, printed.getvalue())
