"""Refiners: what mends scores or labels at the size of the photo, and how segmentors run them.

A list of them belongs to the segmentor (``refiners=[dict(type='PAMR'), dict(type='MaskVote')]``)
and runs in its order: score refiners before the softmax, label refiners after the threshold.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from mmseg.registry import MODELS
from torch import Tensor

from mmclipdis.models.segmentation.prediction import Refine, resize
from mmclipdis.models.segmentation.windows import Size
from mmclipdis.utils.precision import at_least_fp32


@runtime_checkable
class ScoreRefiner(Protocol):
    """Mends scores of queries, before the softmax over them.

    Attributes:
        per_query: Whether it treats each query on its own. Then a few of them are refined at a
            time; else all of them are at full size together.
    """

    per_query: bool

    def prepare(self, photo: Tensor) -> Callable[[Tensor], Tensor]:
        """What makes refined scores (K, H, W) of scores, for one photo.

        Args:
            photo: Normalised, (3, H, W), at the size of the photo.
        """


@runtime_checkable
class LabelRefiner(Protocol):
    """Mends labels, after the threshold."""

    def refine(self, labels: Tensor, masks: Tensor | None) -> Tensor:
        """Labels int64 (H, W) from labels, and the photo's mask map int64 (H, W) if it has one."""


Refiner = ScoreRefiner | LabelRefiner


def build_refiners(refiners: Any) -> tuple[Refiner, ...]:
    """The refiners that a config names, or that were built.

    Args:
        refiners: A list; None for none.

    Raises:
        ValueError: no list, an unknown type or argument, something that refines nothing, or a
            score refiner behind a label refiner.
    """
    if not isinstance(refiners, Sequence | None) or isinstance(refiners, str):
        raise ValueError(
            f"refiners={refiners!r} is no list: write refiners=[dict(type='PAMR')], or [] for none"
        )
    built = tuple(_build(item, place) for place, item in enumerate(refiners or ()))
    labelled = [not isinstance(refiner, ScoreRefiner) for refiner in built]
    if labelled != sorted(labelled):
        names = ", ".join(type(refiner).__name__ for refiner in built)
        raise ValueError(
            f"refiners [{names}]: one that refines scores stands behind one that refines labels, "
            "which are made of the scores; put it first"
        )
    return built


def refine_scores(refiners: Sequence[Refiner], image: Tensor, size: Size) -> Refine | None:
    """What the score refiners make of scores (K, H, W) of one photo, in their order; None if none.

    Args:
        refiners: Of the segmentor.
        image: What the segmentor sees, (3, h, w) without padding. Resized bilinearly to the photo.
        size: (height, width) of the photo.
    """
    of_scores = [refiner for refiner in refiners if isinstance(refiner, ScoreRefiner)]
    if not of_scores:
        return None
    photo = resize(at_least_fp32(image), size)
    steps = [refiner.prepare(photo) for refiner in of_scores]

    def refine(scores: Tensor) -> Tensor:
        for step in steps:
            scores = step(scores)
        return scores

    return refine


def refine_labels(refiners: Sequence[Refiner], labels: Tensor, masks: Tensor | None) -> Tensor:
    """Labels (H, W) as the label refiners make them, in their order.

    Args:
        refiners: Of the segmentor.
        labels: int64 (H, W).
        masks: int64 (H, W), the number of each pixel's mask; None without masks.
    """
    for refiner in refiners:
        if isinstance(refiner, LabelRefiner):
            labels = refiner.refine(labels, masks)
    return labels


def in_chunks(refiners: Sequence[Refiner]) -> bool:
    """Whether a few queries may be refined without the others."""
    return all(refiner.per_query for refiner in refiners if isinstance(refiner, ScoreRefiner))


def refines_labels(refiners: Sequence[Refiner]) -> bool:
    """Whether one of them mends labels."""
    return any(isinstance(refiner, LabelRefiner) for refiner in refiners)


def _build(item: Any, place: int) -> Refiner:
    where = f"refiners[{place}]"
    built = item
    if isinstance(item, Mapping):
        kind = item.get("type")
        known = MODELS.get(kind) if isinstance(kind, str) and kind else kind
        if not inspect.isclass(known):
            raise ValueError(f"{where} is of type {kind!r}, which is none: choose PAMR or MaskVote")
        _check_arguments(known, item, where)
        built = MODELS.build(dict(item))
    if inspect.isclass(built) or not isinstance(built, ScoreRefiner | LabelRefiner):
        raise ValueError(
            f"{where}, {_short(built)}, refines nothing: a refiner has prepare() and per_query "
            "(scores), or refine() (labels), as PAMR and MaskVote"
        )
    return built


def _check_arguments(kind: type, item: Mapping[str, Any], where: str) -> None:
    taken = inspect.signature(kind).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        return
    unknown = sorted(set(item) - {"type", *taken})
    if unknown:
        takes = ", ".join(taken) or "none"
        raise ValueError(f"{where}: {kind.__name__} has no argument {unknown[0]!r}; it has {takes}")


def _short(value: Any) -> str:
    if inspect.isclass(value):
        return f"the class {value.__name__} and no object of it"
    return repr(value) if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"
