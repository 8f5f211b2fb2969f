"""The world of ShapeScenes: names, numbers, colours and splits of its classes, written once.

Class indices are contiguous: things first, grounds ("stuff") after them. COCO category ids are the
class index plus one, because COCO reserves 0.
"""

from __future__ import annotations

THINGS: tuple[str, ...] = (
    "apple",
    "plum",
    "orange",
    "watermelon",
    "banana",
    "starfish",
    "kite",
    "wheel",
    "mushroom",
    "fish",
    "umbrella",
    "carrot",
)
STUFF: tuple[str, ...] = ("grass", "sand", "water", "gravel", "snow", "wood")
CLASSES: tuple[str, ...] = THINGS + STUFF

# Named in the captions the tiny CLIP was pretrained on, but never given to segmentation training.
NOVEL: tuple[str, ...] = ("watermelon", "kite", "mushroom", "snow", "wood")
BASE: tuple[str, ...] = tuple(name for name in CLASSES if name not in NOVEL)

# Drawing colours of the label maps (RGB), chosen to be told apart, not to imitate the objects.
PALETTE: tuple[tuple[int, int, int], ...] = (
    (220, 20, 60),
    (128, 0, 160),
    (255, 140, 0),
    (0, 120, 40),
    (255, 225, 25),
    (255, 120, 170),
    (0, 230, 200),
    (60, 60, 60),
    (150, 60, 40),
    (0, 40, 150),
    (120, 110, 255),
    (190, 230, 0),
    (110, 190, 80),
    (225, 200, 150),
    (100, 170, 210),
    (150, 150, 150),
    (200, 200, 255),
    (165, 120, 70),
)

GROUPS: dict[str, tuple[str, ...]] = {
    "base": BASE,
    "novel": NOVEL,
    "things": THINGS,
    "stuff": STUFF,
}


def category_id(index: int) -> int:
    """COCO category id of a contiguous class index."""
    return index + 1
