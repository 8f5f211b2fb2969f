"""How surely a box holds a thing, from how badly its centre is reconstructed.

An auto-encoder that has seen whole images knows the ground best, as most cells are ground. Errors
of things and of ground have two densities, exponentiated Weibull ones, and the weight of a box is
``f_fg / (f_fg + f_bg)`` at its error.

Source: MEPU (open-world detection), step (d) of its recipe: boxes go to five levels by their area,
each with its own pair of densities; errors are binned by 0.01 and capped at 5. Features and samples
are ours: MEPU reads a self-supervised ResNet's pyramid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import exponweib

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
#: Sides of the squares whose areas part the levels, in pixels.
LEVEL_SIDES = (32, 64, 128, 256)
#: Width of a bin of errors, and where they are capped.
BIN, CAP = 0.01, 5.0
#: Samples of each kind that a fit needs.
LEAST = 30


def levels_of(areas: Floats) -> Integers:
    """Level 0..4 of boxes of these areas (n,), in square pixels."""
    return np.searchsorted(np.square(LEVEL_SIDES), areas, side="right").astype(np.int64)


def binned(errors: Floats) -> Floats:
    """Middles of the bins that errors (n,) fall into; above 0, where the densities are defined."""
    cells = np.floor(np.clip(errors, 0, CAP) / BIN + 1e-9)
    return (np.minimum(cells, round(CAP / BIN) - 1) + 0.5) * BIN


@dataclass(frozen=True)
class Densities:
    """Shapes and scale of an exponentiated Weibull density of things, and one of ground.

    Attributes:
        foreground: a, c, location (0) and scale, as in ``scipy.stats.exponweib``.
        background: The same.
    """

    foreground: tuple[float, ...]
    background: tuple[float, ...]

    def weight(self, errors: Floats) -> Floats:
        """``f_fg / (f_fg + f_bg)`` of errors (n,); 0.5 where neither has any density."""
        at = binned(errors)
        with np.errstate(all="ignore"):
            difference = exponweib.logpdf(at, *self.background) - exponweib.logpdf(
                at, *self.foreground
            )
            weight = 1 / (1 + np.exp(difference))
        return np.where(np.isnan(difference), 0.5, weight)


@dataclass(frozen=True)
class LevelDensities:
    """The densities of all boxes, and of those levels that have boxes enough for their own."""

    overall: Densities
    levels: Mapping[int, Densities] = field(default_factory=dict)

    def weights(self, errors: Floats, areas: Floats) -> Floats:
        """Weights (n,) in 0..1 of boxes with these errors and areas (px)."""
        weights = self.overall.weight(errors)
        levels = levels_of(areas)
        for level, densities in self.levels.items():
            weights[levels == level] = densities.weight(errors[levels == level])
        return weights


def fit_densities(
    foreground: tuple[Floats, Floats], background: tuple[Floats, Floats]
) -> LevelDensities:
    """Fit the densities of things and of ground to samples.

    Args:
        foreground: Errors (n,) and areas (n,) of boxes of things.
        background: The same of boxes without.

    Raises:
        ValueError: too few samples, or a fit that does not come to an end.
    """
    if min(len(foreground[0]), len(background[0])) < LEAST:
        raise ValueError(
            f"{len(foreground[0]):,} boxes of things and {len(background[0]):,} of ground are too "
            f"few to fit densities to ({LEAST} of each are needed): give more --fit-images, or "
            "take --weight objectness"
        )
    overall = Densities(_fit(foreground[0]), _fit(background[0]))
    found: dict[int, Densities] = {}
    levels = [levels_of(areas) for _, areas in (foreground, background)]
    for level in range(len(LEVEL_SIDES) + 1):
        errors = [kind[0][of == level] for kind, of in zip((foreground, background), levels)]
        if min(map(len, errors)) >= LEAST:
            found[level] = Densities(_fit(errors[0]), _fit(errors[1]))
    return LevelDensities(overall, found)


def _fit(errors: Floats) -> tuple[float, ...]:
    """Parameters of the density of errors (n,), by maximum likelihood.

    ``exponweib.fit`` finds the same, and computes every one of the equal logarithms of a bin.
    """
    values, counts = np.unique(binned(errors), return_counts=True)

    def loss(logarithms: Floats) -> float:
        a, c, scale = np.exp(logarithms)
        with np.errstate(all="ignore"):
            found = float(counts @ exponweib.logpdf(values, a, c, 0, scale)) / len(errors)
        return -found if np.isfinite(found) else np.inf

    start = np.log([1.0, 1.5, float(counts @ values) / len(errors)])
    found = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 2000, "fatol": 1e-7})
    if not np.isfinite(found.fun):
        raise ValueError(
            f"no density fits {len(errors):,} errors from {values[0]:.2f} to {values[-1]:.2f}: "
            "take --weight objectness"
        )
    a, c, scale = np.exp(found.x).tolist()
    return a, c, 0.0, scale
