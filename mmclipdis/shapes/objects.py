"""The twelve objects of ShapeScenes: each a silhouette, a palette and a pattern of its own.

Every painter gets the object's own coordinates ``u`` (right) and ``v`` (down), both in [-1, 1]
across the object, as ``(n, m)`` arrays, and a random generator for its look. It returns the
silhouette ``(n, m)`` bool and the colours ``(n, m, 3)`` float32 RGB in 0-255.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mmclipdis.shapes.world import THINGS

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Painter = Callable[[Array, Array, np.random.Generator], tuple[Mask, Array]]


def hsv(hue: float, saturation: float, value: float) -> Array:
    """RGB colour ``(3,)`` in 0-255 of a hue in degrees, saturation and value in 0-1."""
    rgb = colorsys.hsv_to_rgb(
        (hue / 360.0) % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0)
    )
    return np.asarray(rgb, dtype=np.float32) * 255.0


def _colour(
    rng: np.random.Generator, hue: float, spread: float, saturation: float, value: float
) -> Array:
    return hsv(
        hue + rng.uniform(-spread, spread),
        saturation + rng.uniform(-0.1, 0.1),
        value + rng.uniform(-0.1, 0.1),
    )


def _fill(u: Array, colour: Array) -> Array:
    return np.broadcast_to(colour, (*u.shape, 3)).astype(np.float32)


def _round_shade(u: Array, v: Array, rgb: Array) -> Array:
    """A soft highlight at the upper left, so that round things look round."""
    light = 1.12 - 0.42 * ((u + 0.3) ** 2 + (v + 0.3) ** 2)
    return np.asarray(rgb * np.clip(light, 0.55, 1.25)[..., None], dtype=np.float32)


def _apple(u: Array, v: Array, rng: np.random.Generator) -> tuple[Mask, Array]:
    theta = np.arctan2(u, -v)
    body = u**2 + (v - 0.08) ** 2 < (0.9 - 0.22 * np.exp(-(theta**2) / 0.12)) ** 2
    stem = (np.abs(u - 0.15 * (v + 0.7) ** 2) < 0.07) & (v < -0.5) & (v > -0.98)
    rgb = _round_shade(u, v, _fill(u, _colour(rng, 357, 8, 0.88, 0.85)))
    blush = np.clip(0.5 * (v + 0.2), 0, 0.5)[..., None]
    rgb = rgb * (1 - blush) + hsv(50, 0.8, 0.9) * blush
    rgb[stem] = hsv(30, 0.6, 0.3)
    return body | stem, rgb


def _plum(u: Array, v: Array, rng: np.random.Generator) -> tuple[Mask, Array]:
    body = (u / 0.82) ** 2 + (v / 0.95) ** 2 < 1
    rgb = _round_shade(u, v, _fill(u, _colour(rng, 295, 14, 0.7, 0.55)))
    crease = np.abs(u - 0.3 * (1 - v**2)) < 0.07
    rgb[crease] *= 0.45
    return body, rgb


def _orange(u: Array, v: Array, rng: np.random.Generator) -> tuple[Mask, Array]:
    body = u**2 + v**2 < 0.93**2
    rgb = _round_shade(u, v, _fill(u, _colour(rng, 29, 5, 0.93, 0.97)))
    dimples = np.sin(11 * u) * np.sin(11 * v) > 0.55
    rgb[dimples] *= 0.78
    rgb[(u - 0.1) ** 2 + (v + 0.6) ** 2 < 0.03] = hsv(110, 0.6, 0.4)
    return body, rgb


def _watermelon(u: Array, v: Array, rng: np.random.Generator) -> tuple[Mask, Array]:
    body = (u / 0.97) ** 2 + (v / 0.8) ** 2 < 1
    rgb = _fill(u, _colour(rng, 115, 10, 0.55, 0.7))
    bend = u / np.sqrt(np.clip(1.05 - v**2, 0.1, None))
    stripes = np.sin(9 * bend + rng.uniform(0, 6) + 0.5 * np.sin(9 * v)) > 0.1
    rgb[stripes] = _colour(rng, 130, 8, 0.8, 0.3)
    return body, _round_shade(u, v, rgb)


def _banana(u: Array, v: Array, rng: np.random.Generator) -> tuple[Mask, Array]:
    body = (u**2 + (v + 0.35) ** 2 < 1.0) & (u**2 + (v + 0.95) ** 2 > 1.02**2) & (v > -0.6)
    rgb = _fill(u, _colour(rng, 52, 4, 0.8, 0.95))
    rgb = rgb * (1.0 - 0.25 * (np.abs(v - 0.3 + 0.6 * u**2) < 0.06))[..., None]
    rgb[(np.abs(u) > 0.8) | (rng.random() < 0.5) & (np.abs(u) > 0.7)] = hsv(35, 0.7, 0.35)
    return body, rgb


def _starfish(u: Array, v: Array, rng: np.random.Generator) -> tuple[Mask, Array]:
    rho, theta = np.hypot(u, v), np.arctan2(u, -v)
    body = rho < 0.58 + 0.4 * np.cos(5 * theta)
    rgb = _fill(u, _colour(rng, 338, 8, 0.5, 0.92))
    ridge = (np.cos(5 * theta) > 0.9) & (np.sin(16 * rho) > 0)
    rgb[ridge | (rho < 0.12)] = hsv(40, 0.25, 1.0)
    return body, rgb


def _kite(u: Array, v: Array, rng: np.random.Generator) -> tuple[Mask, Array]:
    body = np.abs(u) / 0.72 + np.where(v < 0, -v / 0.75, v / 0.98) < 1
    rgb = _fill(u, _colour(rng, 186, 8, 0.85, 0.88))
    rgb[u * v > 0] = _colour(rng, 58, 5, 0.8, 0.98)
    rgb[(np.abs(u) < 0.05) | (np.abs(v) < 0.05)] = hsv(0, 0.0, 0.15)
    return body, rgb


def _wheel(u: Array, v: Array, rng: np.random.Generator) -> tuple[Mask, Array]:
    rho, theta = np.hypot(u, v), np.arctan2(u, -v)
    spokes = int(rng.integers(5, 8))
    tyre = (rho < 0.95) & (rho > 0.62)
    inner = (rho < 0.66) & ((np.cos(spokes * theta) > 0.55) | (rho < 0.25))
    rgb = _fill(u, _colour(rng, 220, 30, 0.1, 0.2))
    rgb[rho < 0.62] = _colour(rng, 220, 20, 0.1, 0.8)
    rgb[(rho > 0.74) & (rho < 0.8)] *= 1.9
    return tyre | inner, rgb


def _mushroom(u: Array, v: Array, rng: np.random.Generator) -> tuple[Mask, Array]:
    cap = ((u / 0.95) ** 2 + ((v - 0.1) / 1.0) ** 2 < 1) & (v < 0.1)
    stem = (np.abs(u) < 0.26 + 0.12 * np.clip(v, 0, 1)) & (v >= 0.1) & (v < 0.93)
    rgb = _fill(u, _colour(rng, 6, 6, 0.85, 0.8))
    phase = rng.uniform(0, 6, size=2)
    dots = np.sin(7.5 * u + phase[0]) * np.sin(7.5 * v + phase[1]) > 0.45
    rgb[dots] = 250.0
    rgb[v >= 0.1] = hsv(42, 0.2, 0.93)
    rgb[(v >= 0.1) & (v < 0.2)] = hsv(35, 0.35, 0.65)
    return cap | stem, rgb


def _fish(u: Array, v: Array, rng: np.random.Generator) -> tuple[Mask, Array]:
    body = ((u + 0.2) / 0.76) ** 2 + (v / 0.52) ** 2 < 1
    tail = (u > 0.3) & (u < 0.97) & (np.abs(v) < 0.95 * (u - 0.28))
    rgb = _fill(u, _colour(rng, 222, 10, 0.75, 0.8))
    scales = np.sin(15 * u + 5 * np.cos(9 * v)) > 0.35
    rgb[scales] = _colour(rng, 200, 8, 0.35, 0.95)
    rgb[tail & ~body] = _colour(rng, 30, 8, 0.85, 0.95)
    eye = (u + 0.62) ** 2 + (v + 0.12) ** 2
    rgb[eye < 0.026] = 255.0
    rgb[eye < 0.007] = 0.0
    return body | tail, rgb


def _umbrella(u: Array, v: Array, rng: np.random.Generator) -> tuple[Mask, Array]:
    hem = 0.08 + 0.1 * np.abs(np.cos(5.0 * u))
    canopy = (u**2 + (v - 0.05) ** 2 < 0.96**2) & (v < hem)
    handle = (np.abs(u) < 0.06) & (v >= 0) & (v < 0.85)
    hook = (np.abs(np.hypot(u - 0.17, v - 0.8) - 0.17) < 0.06) & (v > 0.8)
    rgb = _fill(u, _colour(rng, 255, 12, 0.7, 0.75))
    panel = np.sin(7.0 * np.arctan2(u, 1.0 - v * 0.9) * 2.0) > 0
    rgb[panel] = _colour(rng, 255, 12, 0.08, 0.97)
    rgb[(handle | hook) & ~canopy] = hsv(25, 0.6, 0.35)
    return canopy | handle | hook, rgb


def _carrot(u: Array, v: Array, rng: np.random.Generator) -> tuple[Mask, Array]:
    root = (np.abs(u) < 0.40 * np.sqrt(np.clip((0.97 - v) / 1.4, 0, None))) & (v > -0.42)
    fan = np.arctan2(u, -(v + 0.35))
    leaves = (v <= -0.3) & (np.hypot(u, v + 0.35) < 0.5 + 0.13 * np.cos(9 * fan)) & (abs(fan) < 1.1)
    rgb = _fill(u, _colour(rng, 20, 4, 0.9, 0.95))
    rgb[np.sin(17 * v + 2 * np.sign(u)) > 0.75] *= 0.7
    rgb[leaves & ~root] = _colour(rng, 105, 10, 0.75, 0.55)
    return root | leaves, rgb


PAINTERS: dict[str, Painter] = {
    "apple": _apple,
    "plum": _plum,
    "orange": _orange,
    "watermelon": _watermelon,
    "banana": _banana,
    "starfish": _starfish,
    "kite": _kite,
    "wheel": _wheel,
    "mushroom": _mushroom,
    "fish": _fish,
    "umbrella": _umbrella,
    "carrot": _carrot,
}
if tuple(PAINTERS) != THINGS:
    raise RuntimeError(
        "shapes.objects.PAINTERS must list the things of shapes.world in their order"
    )
