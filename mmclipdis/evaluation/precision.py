"""Average precision, and precision and recall of decisions, for many classes at once.

Our own, of numpy: scikit-learn gives the same to 1e-16 in the same time, class by class and after
unknown labels are cut out, and would be a dependency for one function (the tests compare with it).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def average_precision(scores: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """Average precision (N,) of every class in [0, 1]; nan for a class without positives.

    AP = Σ_k (R_k − R_{k−1}) P_k over the distinct scores, highest first: the mean over the
    positives of the precision among all images that score at least as high (not interpolated; not
    VOC's 11 points). Equal scores are one step, so the order of the images does not matter:
    scikit-learn's ``average_precision_score``.

    Args:
        scores: (M, N), of M images and N classes.
        target: (M, N), 1 positive, 0 negative, -1 unknown: as if the image were not there.

    Raises:
        ValueError: the arrays are not (M, N) alike, or a score is nan.
    """
    scores, target = np.asarray(scores, np.float64), np.asarray(target)
    _check_shapes(scores, target)
    if np.isnan(scores).any():
        raise ValueError("scores must not be nan: they are ranked")
    if not len(scores):
        return np.full(scores.shape[1], np.nan)
    order = np.argsort(-scores, axis=0)
    ranked = np.take_along_axis(scores, order, 0)
    label = np.take_along_axis(target, order, 0)
    # The last place with the same score: of every place where the next one scores less, the
    # nearest from here on.
    places = np.arange(len(scores))[:, None]
    ends = np.full(scores.shape, len(scores) - 1)
    ends[:-1] = np.where(ranked[:-1] != ranked[1:], places[:-1], len(scores) - 1)
    last = np.minimum.accumulate(ends[::-1], axis=0)[::-1]
    positive = label == 1
    found = np.take_along_axis(np.cumsum(positive, axis=0), last, 0)
    seen = np.take_along_axis(np.cumsum(label >= 0, axis=0), last, 0)
    total = positive.sum(0)
    gain = np.where(positive, found / np.maximum(seen, 1), 0).sum(0)
    return np.where(total > 0, gain / np.maximum(total, 1), np.nan)


def confusion(
    predicted: ArrayLike, target: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """True positives, false positives and false negatives of every class, (N,) each.

    Args:
        predicted: bool (M, N), of M images and N classes.
        target: (M, N), 1 present, 0 absent, -1 unknown: not counted.

    Raises:
        ValueError: the arrays are not (M, N) alike.
    """
    predicted, target = np.asarray(predicted, bool), np.asarray(target)
    _check_shapes(predicted, target)
    hit = (predicted & (target == 1)).sum(0)
    return hit, (predicted & (target == 0)).sum(0), (~predicted & (target == 1)).sum(0)


def precision_recall(
    hit: ArrayLike, false: ArrayLike, missed: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision TP/(TP+FP), recall TP/(TP+FN) and F1 2TP/(2TP+FP+FN) in [0, 1]; 0 where TP is 0.

    Args:
        hit: TP, of any shape.
        false: FP.
        missed: FN.
    """
    hit, false, missed = (np.asarray(count, np.float64) for count in (hit, false, missed))
    # Where TP is 0 the numerator is, too; 1 keeps 0/0 out.
    return (
        hit / np.maximum(hit + false, 1),
        hit / np.maximum(hit + missed, 1),
        2 * hit / np.maximum(2 * hit + false + missed, 1),
    )


def _check_shapes(values: NDArray[np.generic], target: NDArray[np.generic]) -> None:
    if values.ndim != 2 or values.shape != target.shape:
        raise ValueError(
            f"both must be (images, classes), got {values.shape} and a target of {target.shape}"
        )
