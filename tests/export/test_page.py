"""The examples of docs/export.md run on files of this package."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.export.conftest import Exported
from tests.paths import ROOT


def example(word: str) -> str:
    """The example of the page in which a word stands."""
    page = (ROOT / "docs" / "export.md").read_text()
    (found,) = [code for code in re.findall(r"(?s)```python\n(.*?)```", page) if word in code]
    return found


def test_the_example_of_the_page_names_the_ground(
    exported: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(exported.path, "shapes.onnx")
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    Image.fromarray(noise).save("photo.png")
    exec(compile(example("onnxruntime"), "docs/export.md", "exec"), {})
    shares = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert set(shares) == {"grass", "sand", "apple"}
    assert sum(float(share.rstrip("%")) for share in shares.values()) == pytest.approx(100, abs=0.2)
