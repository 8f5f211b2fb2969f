"""The six grounds of ShapeScenes: textures that fill a canvas, ``(h, w, 3)`` float32 RGB 0-255."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from mmclipdis.shapes.objects import Array, hsv
from mmclipdis.shapes.world import STUFF

Texture = Callable[[int, int, float, np.random.Generator], Array]


def _noise(h: int, w: int, cell: tuple[float, float], rng: np.random.Generator) -> Array:
    """Smooth noise ``(h, w)`` of zero mean; ``cell`` is its grain (down, across) in pixels."""
    rows, cols = max(2, int(h / cell[0]) + 2), max(2, int(w / cell[1]) + 2)
    coarse = rng.standard_normal((rows, cols), dtype=np.float32)
    smooth = cv2.resize(coarse, (w, h), interpolation=cv2.INTER_LINEAR)
    return np.asarray(smooth, dtype=np.float32)


def _tint(base: Array, shade: Array) -> Array:
    return base * shade[..., None]


def _colour(rng: np.random.Generator, hue: float, saturation: float, value: float) -> Array:
    return hsv(
        hue + rng.uniform(-7, 7),
        saturation + rng.uniform(-0.07, 0.07),
        value + rng.uniform(-0.08, 0.08),
    )


def _grass(h: int, w: int, scale: float, rng: np.random.Generator) -> Array:
    blades = _noise(h, w, (5 * scale, 1.2), rng)
    patches = _noise(h, w, (14 * scale, 14 * scale), rng)
    return _tint(_colour(rng, 95, 0.65, 0.55), 1 + 0.22 * blades + 0.08 * patches)


def _sand(h: int, w: int, scale: float, rng: np.random.Generator) -> Array:
    grain = rng.standard_normal((h, w), dtype=np.float32)
    dunes = _noise(h, w, (9 * scale, 22 * scale), rng)
    return _tint(_colour(rng, 40, 0.38, 0.86), 1 + 0.06 * grain + 0.06 * dunes)


def _water(h: int, w: int, scale: float, rng: np.random.Generator) -> Array:
    y = np.arange(h, dtype=np.float32)[:, None]
    swell = _noise(h, w, (8 * scale, 16 * scale), rng)
    waves = np.sin(y / (1.5 * scale) + 2.2 * swell + rng.uniform(0, 6))
    rgb = _tint(_colour(rng, 208, 0.7, 0.65), (1 + 0.16 * waves).astype(np.float32))
    rgb[waves > 0.93] += 45
    return rgb


def _gravel(h: int, w: int, scale: float, rng: np.random.Generator) -> Array:
    cell = 3.0 * scale
    rows, cols = int(h / cell) + 2, int(w / cell) + 2
    stones = rng.uniform(0.55, 1.25, size=(rows, cols)).astype(np.float32)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    y = y / cell + 0.25 * _noise(h, w, (cell, cell), rng)
    x = x / cell + 0.25 * _noise(h, w, (cell, cell), rng)
    shade = stones[np.clip(y, 0, rows - 1).astype(int), np.clip(x, 0, cols - 1).astype(int)]
    gap = (np.abs(y - np.floor(y) - 0.5) > 0.4) | (np.abs(x - np.floor(x) - 0.5) > 0.4)
    return _tint(_colour(rng, 220, 0.07, 0.58), np.where(gap, 0.5, shade).astype(np.float32))


def _snow(h: int, w: int, scale: float, rng: np.random.Generator) -> Array:
    drifts = _noise(h, w, (16 * scale, 24 * scale), rng)
    sparkle = _noise(h, w, (1.5, 1.5), rng) > 2.0
    shade = np.clip(1 + 0.05 * drifts, None, 1.05) + 0.05 * sparkle
    return _tint(_colour(rng, 215, 0.09, 0.93), shade.astype(np.float32))


def _wood(h: int, w: int, scale: float, rng: np.random.Generator) -> Array:
    upright = rng.random() < 0.5
    rows, cols = (w, h) if upright else (h, w)
    plank = 11.0 * scale
    y = np.arange(rows, dtype=np.float32)[:, None] + rng.uniform(0, plank)
    grain = _noise(rows, cols, (1.2, 20 * scale), rng)
    tone = rng.uniform(0.85, 1.15, size=int(rows / plank) + 3).astype(np.float32)
    shade = tone[(y / plank).astype(int)] * (1 + 0.1 * grain)
    shade = np.where(y % plank < 1.2, 0.5, shade).astype(np.float32)
    return _tint(_colour(rng, 27, 0.58, 0.58), shade.T if upright else shade)


TEXTURES: dict[str, Texture] = {
    "grass": _grass,
    "sand": _sand,
    "water": _water,
    "gravel": _gravel,
    "snow": _snow,
    "wood": _wood,
}
if tuple(TEXTURES) != STUFF:
    raise RuntimeError("shapes.grounds.TEXTURES must list the stuff of shapes.world in its order")


def paint_ground(name: str, h: int, w: int, rng: np.random.Generator) -> Array:
    """Texture of a ground on an ``h`` by ``w`` pixel canvas, float32 RGB, clipped to 0-255."""
    scale = float(rng.uniform(0.8, 1.7))
    return np.clip(TEXTURES[name](h, w, scale, rng), 0, 255).astype(np.float32)
