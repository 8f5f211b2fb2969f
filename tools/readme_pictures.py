#!/usr/bin/env python
"""Draws the pictures at the top of README.md with the models that come with the package.

python tools/readme_pictures.py               # docs/pictures/{segment,detect,heatmap}.jpg, a minute
python tools/readme_pictures.py --out /tmp    # elsewhere, to compare

The photos are scenes of ShapeScenes, 200 x 266 pixels, drawn from the numbers below.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmclipdis import detect, segment
from mmclipdis.apis.cli import run
from mmclipdis.shapes.scene import draw_scene
from mmclipdis.utils.whole_files import write_picture
from mmclipdis.visualization import class_palette, compose_sheet

OUT = Path(__file__).resolve().parents[1] / "docs" / "pictures"
SIZE = (200, 266)
#: Numbers of the scenes, chosen among 120 for what the tiny models do well on them.
SEGMENTED, DETECTED, HEATED = (14, 25, 22, 9, 24), (114, 81, 109, 91, 33, 65), (25, 9, 22, 46)
#: In the order of the colours: red, blue, green, ...
WORDS = "apple, water, grass, mushroom, kite, wood, gravel, watermelon, sand"
BOXED = "apple, fish, starfish, orange, wheel, watermelon"
#: Of a picture's cells, in pixels.
HEIGHT, HIGH = 190, 250


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the three pictures into the folder that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT, help="folder (default: docs/pictures)")
    out = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    pictures = {
        "segment": segmented(SEGMENTED),
        "detect": detected(DETECTED),
        "heatmap": heated(HEATED, ("apple", "water")),
    }
    for name, picture in pictures.items():
        write_picture(out / f"{name}.jpg", picture)
        print(f"{out / name}.jpg: {picture.width} x {picture.height}")


def scene(number: int) -> np.ndarray:
    """The photo of a number."""
    return draw_scene(np.random.default_rng(number), SIZE).image


def segmented(numbers: Sequence[int]) -> Image.Image:
    """Photos, and below each what ``mmclipdis segment`` draws of it: overlay and label map."""
    photos = [scene(number) for number in numbers]
    results = segment(photos, WORDS, show_progress=False)
    names = results[0].names
    overlays = [np.asarray(result.draw("overlay")) for result in results]
    rows = [photos, overlays, [result.labels for result in results]]
    titles = [f"scene {number}" for number in numbers]
    return compose_sheet(rows, titles, names, class_palette(len(names)), cell_height=HEIGHT)


def detected(numbers: Sequence[int]) -> Image.Image:
    """Photos with the boxes that ``mmclipdis detect --threshold 0.4`` draws, two in a column."""
    sides = round(SIZE[1] * HIGH / SIZE[0]), HIGH  # as they are shown: letters stay sharp
    large = [Image.fromarray(scene(number)).resize(sides) for number in numbers]
    results = detect(large, BOXED, threshold=0.4, show_progress=False)
    drawn = [np.asarray(result.draw()) for result in results]
    half = len(numbers) // 2
    titles = [
        f"scene {above}, below it {below}"
        for above, below in zip(numbers[:half], numbers[half:], strict=True)
    ]
    return compose_sheet([drawn[:half], drawn[half:]], titles, [], [], cell_height=HIGH)


def heated(numbers: Sequence[int], words: Sequence[str]) -> Image.Image:
    """Photos, two in a row, each beside the heat map of every word."""
    cells = []
    for number in numbers:
        result = segment(scene(number), WORDS)
        heat = [np.asarray(result.heatmap(word).draw(opacity=0.7)) for word in words]
        cells.append([result.photo, *heat])
    rows = [[*left, *right] for left, right in zip(cells[::2], cells[1::2], strict=True)]
    return compose_sheet(rows, ["photo", *words] * 2, [], [], cell_height=HEIGHT)


if __name__ == "__main__":
    run(main, None)
