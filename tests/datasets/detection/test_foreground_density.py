"""The two-density estimate: bins, levels, and weights that follow the densities they are fit to."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import exponweib

from mmclipdis.datasets.detection.foreground_density import (
    Densities,
    LevelDensities,
    binned,
    fit_densities,
    levels_of,
)
from tests.faults.endings import raises


def test_levels_by_area() -> None:
    sides = np.array([1, 31, 32, 63, 64, 127, 128, 255, 256, 900])
    assert levels_of(sides**2.0).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_bins_of_a_hundredth_capped_at_5() -> None:
    found = binned(np.array([0.0, 0.004, 0.01, 0.0149, 0.29, 4.999, 5.0, 70.0]))
    assert found == pytest.approx([0.005, 0.005, 0.015, 0.015, 0.295, 4.995, 4.995, 4.995])


def density(x: float, a: float, c: float, scale: float) -> float:
    """Exponentiated Weibull: a c/s (1 - e^-z)^(a-1) e^-z (x/s)^(c-1) with z = (x/s)^c."""
    z = (x / scale) ** c
    return a * c / scale * (1 - math.exp(-z)) ** (a - 1) * math.exp(-z) * (x / scale) ** (c - 1)


def test_weight_is_the_share_of_the_foreground() -> None:
    densities = Densities((1.5, 2.0, 0.0, 1.2), (0.8, 1.3, 0.0, 0.4))
    for error in (0.005, 0.105, 0.505, 1.235, 2.005):
        fg, bg = density(error, 1.5, 2.0, 1.2), density(error, 0.8, 1.3, 0.4)
        assert densities.weight(np.array([error]))[0] == pytest.approx(fg / (fg + bg))


def samples(scale: float, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    errors = exponweib.rvs(1.2, 2.0, scale=scale, size=count, random_state=generator)
    return errors, generator.uniform(20, 300, count) ** 2


def test_fitted_weights_are_those_of_the_true_densities() -> None:
    found = fit_densities(samples(1.0, 4000, 0), samples(0.4, 4000, 1))
    assert sorted(found.levels) == [0, 1, 2, 3, 4]
    true = Densities((1.2, 2.0, 0.0, 1.0), (1.2, 2.0, 0.0, 0.4))
    errors = np.linspace(0.1, 1.5, 15)
    assert found.overall.weight(errors) == pytest.approx(true.weight(errors), abs=0.05)
    weights = found.weights(errors, np.full(15, 100.0**2))
    assert weights == pytest.approx(true.weight(errors), abs=0.12)
    assert bool((weights >= 0).all() and (weights <= 1).all())


def test_the_fit_is_the_one_of_scipy() -> None:
    things, ground = samples(1.0, 300, 0), samples(0.4, 300, 1)
    found = fit_densities(things, ground).overall
    for (errors, _), ours in ((things, found.foreground), (ground, found.background)):
        at = binned(errors)
        theirs = exponweib.fit(at, 1.0, 1.5, floc=0, scale=at.mean())
        likelihoods = [exponweib.logpdf(at, *kind).mean() for kind in (ours, theirs)]
        assert likelihoods[0] == pytest.approx(likelihoods[1], abs=1e-4)


def test_a_level_without_boxes_takes_the_densities_of_all() -> None:
    things, ground = samples(1.0, 400, 0), samples(0.4, 400, 1)
    small = np.full(400, 50.0**2)
    found = fit_densities((things[0], small), (ground[0], small))
    assert sorted(found.levels) == [1]
    errors = np.array([0.3, 0.9])
    far = found.weights(errors, np.full(2, 500.0**2))
    assert far.tolist() == found.overall.weight(errors).tolist()


def test_levels_are_kept_apart() -> None:
    one, other = Densities((1, 1, 0, 1), (1, 1, 0, 2)), Densities((1, 1, 0, 2), (1, 1, 0, 1))
    found = LevelDensities(one, {4: other})
    weights = found.weights(np.array([0.5, 0.5]), np.array([100.0, 300.0**2]))
    assert weights[0] > 0.5 > weights[1]
    assert weights.sum() == pytest.approx(1.0)


def test_too_few_samples() -> None:
    few, many = samples(1.0, 10, 0), samples(0.4, 400, 1)
    line = "10 boxes of things and 400 of ground are too few .*--fit-images"
    raises(line, fit_densities, few, many)
