"""From score maps of windows to labels at the size of the photo, a chunk of classes at a time.

Every step between the two (upsample, activation, mean over windows, resize) treats each query on
its own, so it runs on a few queries at a time and only a running argmax is kept. The full
``(Q, H, W)`` tensor, 1.2 GB for 150 classes on 2 megapixels, never exists.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.models.score_scale import probabilities_of
from mmclipdis.models.segmentation.resampling import fits_two_products, resample, straight_to
from mmclipdis.models.segmentation.running_argmax import RunningArgmax
from mmclipdis.models.segmentation.windows import NO_PADDING, Padding, Size, Windows, stitch
from mmclipdis.utils.labels import no_class

Activation = Callable[[Tensor], Tensor]
#: Refined scores (K, H, W) of scores at the size of the photo.
Refine = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class WindowScores:
    """Scores of one image as the model gave them, at patch resolution.

    Attributes:
        maps: (n, Q, gh, gw), one map a window and query; logits or whatever the activation expects.
        windows: where the n windows lie.
        padding: pixels (left, right, top, bottom) that were added around every window before it
            was encoded, and are cut off again here.
        overview: (Q, gh, gw), scores of the whole image squeezed into one window, or None. It is
            averaged half and half with the stitched windows (CAT-Seg's ``slide_with_global``).
        is_whole: the only window is the whole image, whose map is resized to the photo in one step
            and not to the window first (unless there is an activation, which comes at the window).
    """

    maps: Tensor
    windows: Windows
    padding: Padding = NO_PADDING
    overview: Tensor | None = None
    is_whole: bool = False

    @property
    def num_queries(self) -> int:
        """Number of queries Q."""
        return int(self.maps.shape[1])

    def select(self, queries: slice | Tensor) -> WindowScores:
        """Return the scores of some of the queries, given as a slice or as indices."""
        overview = None if self.overview is None else self.overview[queries]
        return replace(self, maps=self.maps[:, queries], overview=overview)


@dataclass(frozen=True)
class LabelRule:
    """How query scores become class probabilities and labels.

    Attributes:
        query_to_class: class index of each query, int64 (Q,), non-decreasing.
        num_classes: number of classes C; one without a query is never the best.
        prob_thd: pixels whose best class probability is strictly below it become background.
        background_index: the class those pixels get; None: there is no background, and they get
            the label of no class.
        area_thd: a foreground class whose share of the foreground pixels is not above it is
            dropped (SCLIP on VOC21: 0.1); None keeps all.
        activation: makes the probability of a query from its logit, in every window and before the
            mean over windows (CAT-Seg: sigmoid). None: the softmax over all queries does, at the
            size of the photo.
        bias: the sigmoid of logit and bias is the probability of a query, whatever the others are,
            and not the softmax; also at the size of the photo. None: the softmax is.
    """

    query_to_class: Tensor
    num_classes: int
    prob_thd: float = 0.0
    background_index: int | None = None
    area_thd: float | None = None
    activation: Activation | None = None
    bias: float | None = None

    @cached_property
    def one_name_each(self) -> bool:
        """Whether query i is class i, for all of them."""
        classes = torch.arange(self.num_classes, device=self.query_to_class.device)
        return torch.equal(self.query_to_class, classes)

    @property
    def doubtful(self) -> int:
        """The label of pixels whose best class is not probable enough."""
        return (
            no_class(self.num_classes) if self.background_index is None else self.background_index
        )


def resize(maps: Tensor, size: Size) -> Tensor:
    """Bilinear resize of (..., K, h, w) to ``size``, half-pixel centres, no antialiasing."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    batched = maps if maps.dim() == 4 else maps.unsqueeze(0)
    out = F.interpolate(batched, size=size, mode="bilinear", align_corners=False)
    return out if maps.dim() == 4 else out[0]


def minmax(maps: Tensor) -> Tensor:
    """Scores (n, Q, gh, gw) of an image's n windows, those of every query spread over 0..1.

    A query with one score everywhere gets 0.
    """
    low, high = maps.amin((0, 2, 3), keepdim=True), maps.amax((0, 2, 3), keepdim=True)
    extent = high - low
    return (maps - low) / extent.where(extent > 0, 1.0)


def full_size_scores(
    scores: WindowScores,
    out_size: Size,
    activation: Activation | None = None,
    refine: Refine | None = None,
) -> Tensor:
    """Scores (Q, H, W) at ``out_size``.

    Patch grid -> bilinear to the (padded) window -> activation -> padding off -> mean over the
    windows -> mean with the overview, if there is one -> bilinear to ``out_size`` -> ``refine``.
    Without activation and overview all up to the last is linear and separable and runs as two
    matrix products. Of a whole image (``is_whole``): patch grid -> bilinear to ``out_size``,
    padding aside.
    """
    full = _resampled(scores, out_size, activation)
    return full if refine is None else refine(full)


def _resampled(scores: WindowScores, out_size: Size, activation: Activation | None) -> Tensor:
    # Under AMP the products would run in half precision, whose steps show as ties in the labels.
    with torch.autocast(scores.maps.device.type, enabled=False):
        if activation is None and scores.overview is None and fits_two_products(scores.windows):
            parts = scores.maps, scores.windows, scores.padding
            return resample(*parts, out_size, in_one_step=scores.is_whole)
        if scores.is_whole and activation is None:
            size = scores.windows.size
            return straight_to(scores.maps[0], size, scores.padding, out_size)
        left, right, top, bottom = scores.padding
        height, width = scores.windows.crop
        upsampled = resize(scores.maps, (height + top + bottom, width + left + right))
        if activation is not None:
            upsampled = activation(upsampled)
        canvas = stitch(upsampled[..., top : top + height, left : left + width], scores.windows)
        if scores.overview is not None:
            overview = resize(scores.overview, scores.windows.crop)
            if activation is not None:
                overview = activation(overview)
            canvas = (canvas + resize(overview, scores.windows.size)) / 2
        return resize(canvas, out_size)


def queries_within(
    budget_mb: float, scores: WindowScores, out_size: Size, refined: bool = False
) -> int:
    """Return how many queries at a time keep every fp32 map within ``budget_mb`` (1e6 bytes).

    The largest map of a query is that of all upsampled windows, of the canvas or of the result;
    a refiner holds three of the latter (what it is given, a copy, what it makes of it), and they
    count together. At least one query, at most all.
    """
    height, width = scores.windows.crop
    windows, canvas = len(scores.windows) * height * width, math.prod(scores.windows.size)
    pixels = max(windows, canvas, math.prod(out_size) * (3 if refined else 1))
    return max(1, int(min(budget_mb * 1e6 / (4 * pixels), scores.num_queries)))


def stream_argmax(
    scores: WindowScores,
    out_size: Size,
    *,
    activation: Activation | None = None,
    refine: Refine | None = None,
    class_chunk: int,
    with_lse: bool = False,
) -> RunningArgmax:
    """Best query of each pixel at ``out_size``, ``class_chunk`` queries in memory at a time.

    Equal to ``full_size_scores(...)`` followed by argmax (and softmax, if ``with_lse``), where
    ``refine`` treats every query on its own.

    Raises:
        ValueError: ``class_chunk`` below 1.
    """
    if class_chunk < 1:
        raise ValueError(f"class_chunk must be at least 1, got {class_chunk}")
    running = RunningArgmax(with_lse)
    for start in range(0, scores.num_queries, class_chunk):
        chunk = scores.select(slice(start, start + class_chunk))
        running.update(full_size_scores(chunk, out_size, activation, refine), start)
    return running


def predict_labels(
    scores: WindowScores,
    out_size: Size,
    rule: LabelRule,
    *,
    class_chunk: int,
    refine: Refine | None = None,
) -> Tensor:
    """Label map int64 (H, W) from logits, in chunks of queries.

    Probabilities by ``rule.activation`` or softmax, maximum over the synonyms of a class, argmax
    over classes, then ``rule.doubtful`` wherever that maximum is strictly below ``rule.prob_thd``
    (with ``rule.bias``: where no query is that probable by itself). The class of the best query is
    the best class, and its probability under the softmax is ``exp(score - logsumexp)``. ``refine``
    treats every query on its own.
    """
    activation = rule.activation
    with_lse = rule.prob_thd > 0 and activation is None and rule.bias is None

    def best_of(some: WindowScores, lse: bool = False) -> RunningArgmax:
        return stream_argmax(
            some,
            out_size,
            activation=activation,
            refine=refine,
            class_chunk=class_chunk,
            with_lse=lse,
        )

    best = best_of(scores, with_lse)
    labels, score = rule.query_to_class[best.index], best.score
    if rule.area_thd is not None:
        dropped = small_classes(labels, rule)
        if bool(dropped[labels].any()):
            kept = (~dropped[rule.query_to_class]).nonzero()[:, 0]
            if not len(kept):
                return torch.full_like(labels, rule.doubtful)
            remaining = best_of(scores.select(kept))
            labels, score = rule.query_to_class[kept[remaining.index]], remaining.score
    if rule.prob_thd > 0:
        probability = best.probability_of(score) if with_lse else score
        if rule.bias is not None:
            probability = probabilities_of(score, rule.bias, dim=0)
        labels = labels.masked_fill(probability < rule.prob_thd, rule.doubtful)
    return labels


def small_classes(labels: Tensor, rule: LabelRule) -> Tensor:
    """Which classes (C,) hold too few of the foreground pixels to be kept; never the background."""
    counts = torch.bincount(labels.flatten(), minlength=rule.num_classes)
    if rule.background_index is not None:
        counts[rule.background_index] = 0
    dropped = counts <= (rule.area_thd or 0.0) * counts.sum()
    if rule.background_index is not None:
        dropped[rule.background_index] = False
    return dropped


def class_probabilities(scores: Tensor, rule: LabelRule) -> Tensor:
    """Class probabilities (C, H, W) from query scores (Q, H, W), see :func:`full_size_scores`.

    ``P_c = max over the queries q of class c of p_q``, where ``p`` is the softmax of the scores,
    the sigmoid of each with ``rule.bias``, or the scores themselves if ``rule.activation`` has been
    applied; with synonyms the classes of a softmax sum to less than 1.
    """
    probabilities = scores
    if rule.activation is None:
        probabilities = probabilities_of(scores, rule.bias, dim=0)
    return best_synonyms(probabilities, rule, empty=0.0)


def best_synonyms(scores: Tensor, rule: LabelRule, empty: float = -torch.inf) -> Tensor:
    """Scores of the classes (..., C, H, W): the best of their queries' (..., Q, H, W).

    A class without a query gets ``empty``.
    """
    if rule.one_name_each:
        return scores
    return best_of_each(scores, rule.query_to_class, rule.num_classes, empty)


def best_of_each(scores: Tensor, query_to_class: Tensor, classes: int, empty: float) -> Tensor:
    """As :func:`best_synonyms`, of so many classes, without a look at the values of a tensor."""
    shape = (*scores.shape[:-3], classes, *scores.shape[-2:])
    index = query_to_class.view(-1, 1, 1).expand_as(scores)
    return scores.new_full(shape, empty).scatter_reduce(-3, index, scores, "amax")


def labels_from_probabilities(probabilities: Tensor, rule: LabelRule) -> Tensor:
    """Label map int64 (H, W) from class probabilities (C, H, W); see :func:`predict_labels`."""
    best, labels = probabilities.max(dim=0)
    if rule.area_thd is not None:
        dropped = small_classes(labels, rule)
        if bool(dropped.all()):
            return torch.full_like(labels, rule.doubtful)
        best, labels = probabilities.masked_fill(dropped[:, None, None], -1).max(dim=0)
    return labels.masked_fill(best < rule.prob_thd, rule.doubtful)
