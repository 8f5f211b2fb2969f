"""Mean and standard deviation of pixels that models expect, and the way from one to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation a channel, RGB, of pixels from 0 to 1.

    Raises:
        ValueError: for other than three numbers, or such of pixels from 0 to 255.
    """

    mean: Sequence[float]
    std: Sequence[float]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, _three(name, getattr(self, name)))
        if not all(0 <= value <= 1 for value in self.mean):
            raise ValueError(_off_scale("mean", self.mean, "from 0 to 1"))
        if not all(0 < value <= 1 for value in self.std):
            raise ValueError(_off_scale("std", self.std, "above 0, up to 1"))

    @property
    def of_bytes(self) -> tuple[list[float], list[float]]:
        """Mean and std of pixels from 0 to 255, as the preprocessors of mm take them."""
        mean, std = ([round(255 * value, 8) for value in own] for own in (self.mean, self.std))
        return mean, std


def convert(images: Tensor, given: Statistics, wanted: Statistics) -> Tensor:
    """Images ``(..., 3, H, W)`` normalised with ``given``, normalised with ``wanted`` instead.

    ``x s_in / s_out + (m_in - m_out) / s_out``: a multiplication and an addition a channel, and the
    images as they are where both are the same.
    """
    if given == wanted:
        return images
    pairs = zip(given.mean, given.std, wanted.mean, wanted.std, strict=True)
    terms = [(std / own, (mean - middle) / own) for mean, std, middle, own in pairs]
    factor, shift = images.new_tensor(terms).T[..., None, None]
    return images * factor + shift


def _three(name: str, values: Sequence[Any]) -> tuple[float, ...]:
    listed = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else []
    real = [isinstance(v, Real) and not isinstance(v, bool) and isfinite(v) for v in listed]
    if len(listed) != 3 or not all(real):
        raise ValueError(f"{name} must be three numbers, of red, green and blue; got {values!r}")
    return tuple(float(value) for value in listed)


def _off_scale(name: str, values: Sequence[float], allowed: str) -> str:
    return (
        f"{name} must be {allowed}, of pixels from 0 to 1, got {list(values)}; divide that of "
        "pixels from 0 to 255 by 255"
    )


CLIP = Statistics((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = Statistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NONE = Statistics((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
