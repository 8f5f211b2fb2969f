"""Photos to try the page with: scenes of ShapeScenes, drawn when the page starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mmclipdis.shapes.scene import draw_scene

#: Seed and task of each photo; its words are what it shows, and one that it does not.
SCENES = ((90, "segment"), (172, "detect"), (53, "tag"))
SIZE = (240, 320)
OTHER = "umbrella"


def write_examples(folder: Path) -> list[tuple[str, str, str]]:
    """Draw the photos; return file, words and task of each.

    Raises:
        OSError: they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    examples = []
    for seed, task in SCENES:
        scene = draw_scene(np.random.default_rng(seed), SIZE)
        path = folder / f"scene_{seed}.png"
        Image.fromarray(scene.image).save(path)
        shown = scene.things if task == "detect" else (*scene.grounds, *scene.things)
        words = [*shown, *([OTHER] if OTHER not in shown else [])]
        examples.append((str(path), ", ".join(words), task))
    return examples
