"""Draws one scene: grounds first, objects from back to front, and the labels that go with them.

A scene is drawn from a random generator alone, so that image ``i`` of a data set depends on its
own seed and on nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from mmclipdis.shapes.grounds import paint_ground
from mmclipdis.shapes.objects import PAINTERS
from mmclipdis.shapes.world import CLASSES, STUFF, THINGS

Kind = Literal["scene", "single", "closeup", "ground"]
KINDS: tuple[Kind, ...] = ("scene", "single", "closeup", "ground")

# An object keeps at least this share of its silhouette in sight, and this many pixels, else it is
# not placed: what is in the annotations and the captions can be seen.
MIN_VISIBLE = 0.5
MIN_PIXELS = 60
_SUPERSAMPLE = 2


@dataclass(frozen=True)
class Scene:
    """One drawn scene.

    Attributes:
        image: ``(h, w, 3)`` uint8 RGB.
        labels: ``(h, w)`` uint8 contiguous class index of each pixel; no pixel is unlabelled.
        instances: ``(h, w)`` uint8, 0 on the grounds, ``i + 1`` on the visible part of object i.
        objects: class index of each object, back to front.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    objects: tuple[int, ...]

    @property
    def things(self) -> tuple[str, ...]:
        """Names of the visible objects, each once, back to front."""
        return tuple(dict.fromkeys(CLASSES[index] for index in self.objects))

    @property
    def grounds(self) -> tuple[str, ...]:
        """Names of the visible grounds, the larger first."""
        counts = np.bincount(self.labels.ravel(), minlength=len(CLASSES))
        order = sorted(range(len(THINGS), len(CLASSES)), key=lambda index: -counts[index])
        return tuple(CLASSES[index] for index in order if counts[index] >= MIN_PIXELS // 4)


@dataclass(frozen=True)
class _Sprite:
    """Coverage ``(n, m)`` in 0-1 and colours ``(n, m, 3)`` of an object, and their place."""

    alpha: NDArray[np.float32]
    rgb: NDArray[np.float32]
    where: tuple[slice, slice]


def draw_scene(
    rng: np.random.Generator,
    size: tuple[int, int],
    kind: Kind = "scene",
    objects: tuple[int, int] | None = None,
) -> Scene:
    """Draws a scene of ``size`` (height, width) in pixels.

    ``scene`` holds 1-5 objects of widely varied scale, ``single`` one object, ``closeup`` one
    object about as large as the frame, ``ground`` none; ``objects`` (least, most) asks for other
    numbers, of which those that would hide others find no place. Raises ValueError for another
    kind or a side under 12 pixels.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of scene {kind!r}; choose one of {', '.join(KINDS)}")
    height, width = size
    if min(height, width) < 12:
        raise ValueError(f"a scene needs sides of at least 12 pixels, got {height} x {width}")
    canvas, labels = _lay_grounds(rng, height, width, kind)
    instances = np.zeros((height, width), np.uint8)
    placed: list[int] = []
    areas: list[int] = []
    for turn in range(_object_count(rng, kind, objects)):
        manner: Kind = "scene" if turn else kind  # what joins a close-up is of ordinary size
        for _attempt in range(8):
            index = int(rng.integers(len(THINGS)))
            if _place(rng, index, manner, canvas, instances, areas):
                labels[instances == len(areas)] = index
                placed.append(index)
                break
    # One light for the whole picture, as a camera's exposure and white balance would vary.
    canvas *= rng.uniform(0.85, 1.12) * rng.uniform(0.96, 1.04, size=3).astype(np.float32)
    canvas += rng.standard_normal(canvas.shape, dtype=np.float32) * rng.uniform(0, 6)
    image = np.clip(canvas, 0, 255).astype(np.uint8)
    return Scene(image, labels, instances, tuple(placed))


def _object_count(
    rng: np.random.Generator, kind: Kind, asked: tuple[int, int] | None = None
) -> int:
    if asked is not None:
        return int(rng.integers(asked[0], asked[1] + 1))
    if kind == "scene":
        return int(rng.choice(5, p=(0.15, 0.25, 0.25, 0.2, 0.15))) + 1
    if kind == "closeup":
        return 1 + int(rng.random() < 0.3)
    return 0 if kind == "ground" else 1


def random_size(
    rng: np.random.Generator, low: float = 96, high: float = 160, aspect: float = 1.5
) -> tuple[int, int]:
    """A random (height, width): mean side in [low, high] pixels, side ratio up to ``aspect``."""
    side = rng.uniform(low, high)
    ratio = float(np.exp(rng.uniform(-np.log(aspect), np.log(aspect))))
    return int(round(side * ratio**0.5)), int(round(side / ratio**0.5))


def _lay_grounds(
    rng: np.random.Generator, height: int, width: int, kind: Kind
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """One ground, or two that meet in a wavy line: canvas and class indices."""
    first, second = (int(i) for i in rng.choice(len(STUFF), size=2, replace=False))
    canvas = paint_ground(STUFF[first], height, width, rng)
    labels = np.full((height, width), len(THINGS) + first, np.uint8)
    if rng.random() < (0.5 if kind in ("scene", "ground") else 0.25):
        y, x = np.mgrid[:height, :width].astype(np.float32)
        y, x = y / height - 0.5, x / width - 0.5
        angle = rng.uniform(0, 2 * np.pi)
        along = np.cos(angle) * y + np.sin(angle) * x
        across = -np.sin(angle) * y + np.cos(angle) * x
        wave = rng.uniform(0, 0.06) * np.sin(across * rng.uniform(5, 14) + rng.uniform(0, 6))
        other = along + wave > rng.uniform(-0.15, 0.15)
        canvas[other] = paint_ground(STUFF[second], height, width, rng)[other]
        labels[other] = len(THINGS) + second
    return canvas, labels


def _place(
    rng: np.random.Generator,
    index: int,
    kind: Kind,
    canvas: NDArray[np.float32],
    instances: NDArray[np.uint8],
    areas: list[int],
) -> bool:
    """Tries to put one object in front of what is there; False, and nothing changed, if hidden."""
    height, width = instances.shape
    side = min(height, width)
    low, high = {"closeup": (0.8, 1.35), "single": (0.22, 0.95)}.get(kind, (0.2, 0.75))
    diameter = side * float(np.exp(rng.uniform(np.log(low), np.log(high))))
    radius = max(diameter / 2, 5.0)
    slack = 0.12 if kind == "closeup" else 0.75
    cy, cx = (
        (rng.uniform(radius * slack, n - radius * slack) if n > 2 * radius * slack else n / 2)
        if kind != "closeup"
        else n * (0.5 + rng.uniform(-slack, slack))
        for n in (height, width)
    )
    sprite = _paint(rng, index, (cy, cx), radius, (height, width))
    if sprite is None:
        return False
    mask = sprite.alpha > 0.5
    area = int(mask.sum())
    window = instances[sprite.where]
    if area < min(MIN_PIXELS, 0.15 * height * width):
        return False
    covered = np.bincount(window[mask], minlength=len(areas) + 1)
    total = np.bincount(instances.ravel(), minlength=len(areas) + 1)
    for number, original in enumerate(areas, start=1):
        left_over = total[number] - covered[number]
        if left_over < max(MIN_VISIBLE * original, MIN_PIXELS):
            return False
    spot = canvas[sprite.where]
    spot += sprite.alpha[..., None] * (sprite.rgb - spot)
    areas.append(area)
    window[mask] = len(areas)
    return True


def _paint(
    rng: np.random.Generator,
    index: int,
    centre: tuple[float, float],
    radius: float,
    size: tuple[int, int],
) -> _Sprite | None:
    """One object on its part of the canvas, antialiased; None if next to nothing is inside."""
    (cy, cx), (height, width) = centre, size
    angle = float(rng.uniform(-0.6, 0.6))
    flip = 1.0 if rng.random() < 0.5 else -1.0
    aspect = float(np.exp(rng.uniform(-0.15, 0.15)))
    reach = radius * 1.2
    top, bottom = max(int(cy - reach), 0), min(int(cy + reach) + 1, height)
    left, right = max(int(cx - reach), 0), min(int(cx + reach) + 1, width)
    if bottom - top < 3 or right - left < 3:
        return None
    s = _SUPERSAMPLE
    y = ((np.arange((bottom - top) * s, dtype=np.float32) + 0.5) / s + top - cy) / radius
    x = ((np.arange((right - left) * s, dtype=np.float32) + 0.5) / s + left - cx) / radius
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u = (cos * x[None, :] + sin * y[:, None]) * np.float32(flip * aspect)
    v = (cos * y[:, None] - sin * x[None, :]) * np.float32(1 / aspect)
    inside, rgb = PAINTERS[THINGS[index]](u, v, rng)
    weight = inside.astype(np.float32)
    rgb = np.clip(rgb * np.float32(rng.uniform(0.88, 1.12)), 0, 255).astype(np.float32)
    shape = (right - left, bottom - top)
    alpha = cv2.resize(weight, shape, interpolation=cv2.INTER_AREA)
    colour = cv2.resize(rgb * weight[..., None], shape, interpolation=cv2.INTER_AREA)
    colour = colour / np.maximum(alpha, 1e-3)[..., None]
    where = (slice(top, bottom), slice(left, right))
    return _Sprite(np.asarray(alpha, np.float32), np.asarray(colour, np.float32), where)
