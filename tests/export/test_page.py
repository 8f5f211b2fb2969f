"""The example of docs/export.md runs on a file that the command of the page writes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmclipdis.export import export
from tests.paths import ROOT


def test_the_example_of_the_page_names_the_ground(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "export.md").read_text()
    (example,) = [code for code in re.findall(r"(?s)```python\n(.*?)```", page) if "numpy" in code]
    monkeypatch.chdir(tmp_path)
    config = ROOT / "configs" / "shapes" / "clearclip.py"
    export(str(config), "grass, sand, apple", "shapes.onnx", image_size=(64, 80))
    green = np.full((64, 80, 3), (80, 160, 60), np.uint8)
    Image.fromarray(green).save("photo.png")
    capsys.readouterr()
    exec(compile(example, "docs/export.md", "exec"), {})
    shares = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert set(shares) == {"grass", "sand", "apple"}
    assert sum(float(share.rstrip("%")) for share in shares.values()) == pytest.approx(100, abs=0.2)
