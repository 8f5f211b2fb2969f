"""tools/readme_pictures.py draws what the README shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

import tools.readme_pictures as pictures
from tests.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_draws_pictures_of_all_three_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "SIZE", (48, 64))
    for name, count in (("SEGMENTED", 1), ("DETECTED", 2), ("HEATED", 2)):
        monkeypatch.setattr(pictures, name, getattr(pictures, name)[:count])
    pictures.main(["--out", str(tmp_path)])
    drawn = {path.stem: Image.open(path) for path in tmp_path.iterdir()}
    assert set(drawn) == {"segment", "detect", "heatmap"}
    assert all(picture.format == "JPEG" for picture in drawn.values())
    assert drawn["segment"].height > 3 * pictures.HEIGHT
    assert drawn["detect"].height > 2 * pictures.HIGH
    assert drawn["heatmap"].width > 6 * pictures.HEIGHT


def test_the_words_beside_the_pictures_are_those_that_they_are_drawn_with() -> None:
    for command, words in (("segment", pictures.WORDS), ("detect", pictures.BOXED)):
        found = re.search(rf'(?m)^mmclipdis {command} photos/ --words "([^"]+)"', README)
        assert found is not None and found[1] == words


def test_the_pictures_of_the_readme_are_small() -> None:
    shown = [ROOT / path for path in re.findall(r"!\[[^]]*\]\((docs/pictures/[^)]+)\)", README)]
    assert [path.name for path in shown] == ["segment.jpg", "detect.jpg", "heatmap.jpg"]
    assert sum(path.stat().st_size for path in shown) < 1_000_000
    assert all(Image.open(path).width > 800 for path in shown)
