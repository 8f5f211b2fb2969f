"""How surely a box holds a thing, from how badly its centre is reconstructed.

An auto-encoder that has seen whole images knows the ground best, as most cells are ground. Errors
of things and of ground have two densities, exponentiated Weibull ones, and the weight of a box is
``f_fg / (f_fg + f_bg)`` at its error.

Source: MEPU (open-world detection), step (d) of its recipe: boxes go to five levels by their area,
each with its own pair of densities; errors are binned by 0.01 and capped at 5. Features and samples
are ours: MEPU reads a self-supervised ResNet's pyramid.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import exponweib

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
#: Sides of the squares whose areas part the levels, in pixels.
LEVEL_SIDES = (32, 64, 128, 256)
#: Width of a bin of errors, and where they are capped.
BIN, CAP = 0.01, 5.0
#: Samples of each kind that a fit needs, and the most that it takes.
LEAST, MOST = 30, 5000


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
    foreground: tuple[Floats, Floats], background: tuple[Floats, Floats], seed: int = 0
) -> LevelDensities:
    """Fit the densities of things and of ground to samples.

    Args:
        foreground: Errors (n,) and areas (n,) of boxes of things.
        background: The same of boxes without.
        seed: Chooses the samples where there are more than a fit takes.

    Raises:
        ValueError: too few samples, or a fit that does not come to an end.
    """
    if min(len(foreground[0]), len(background[0])) < LEAST:
        raise ValueError(
            f"{len(foreground[0]):,} boxes of things and {len(background[0]):,} of ground are too "
            f"few to fit densities to ({LEAST} of each are needed): give more --fit-images, or "
            "take --weight objectness"
        )
    overall = Densities(_fit(foreground[0], seed), _fit(background[0], seed))
    found: dict[int, Densities] = {}
    levels = [levels_of(areas) for _, areas in (foreground, background)]
    for level in range(len(LEVEL_SIDES) + 1):
        errors = [kind[0][of == level] for kind, of in zip((foreground, background), levels)]
        if min(map(len, errors)) >= LEAST:
            found[level] = Densities(_fit(errors[0], seed), _fit(errors[1], seed))
    return LevelDensities(overall, found)


def _fit(errors: Floats, seed: int) -> tuple[float, ...]:
    """Parameters of the density of errors (n,), by maximum likelihood."""
    if len(errors) > MOST:
        errors = np.random.default_rng(seed).choice(errors, MOST, replace=False)
    samples = binned(errors)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of steps on the way
        try:
            found: Any = exponweib.fit(samples, 1.0, 1.5, floc=0, scale=samples.mean())
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"no density could be fitted to {len(samples):,} errors from {samples.min():.2f} "
                f"to {samples.max():.2f}: take --weight objectness"
            ) from error
    if not np.isfinite(found).all():
        raise ValueError(
            f"the density of {len(samples):,} errors from {samples.min():.2f} to "
            f"{samples.max():.2f} is not finite: take --weight objectness"
        )
    return tuple(map(float, found))
