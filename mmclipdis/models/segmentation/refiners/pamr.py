r"""PAMR: scores drift to pixels of the same colour.

Every pixel p takes, ``steps`` times, the mean of its neighbours' scores, weighted by how alike the
colours are:

.. math:: m(p) \leftarrow \sum_n a_n(p)\, m(n), \qquad
          a_n(p) = \mathrm{softmax}_n \Big( \mathrm{mean}_c
          \frac{-|x_c(p) - x_c(n)|}{10^{-8} + 0.1\, \sigma_c(p)} \Big)

with 8 neighbours at each dilation, edges replicated, the pixel itself left out, and
:math:`\sigma_c(p)` the unbiased deviation over neighbours and pixel, which counts once a dilation.

The released code stacks the neighbours of all classes, ``K * 8 * dilations * H * W`` values a step.
Here the weights are made once a photo and the sum runs over the neighbours, in strips of rows that
stay in the processor's cache: two maps a class at a time, and many times as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor

from mmclipdis.utils.precision import at_least_fp32, without_autocast

#: Pixels of all maps that a CPU sums at a time: 512 kB in fp32.
STRIP = 2**17
Offset = tuple[int, int]


@MODELS.register_module()
class PAMR:
    """A score refiner that treats every query on its own (``per_query``).

    The result does not change with an affine map of the photo's colours, such as CLIP's
    normalisation, and commutes with a factor on the scores. Runs in fp32 at least. Segmentors give
    it scores of the size of the photo; others are resized to it with aligned corners first, as in
    the released code.

    Args:
        steps: How often.
        dilations: Distances of the neighbours in pixels of the photo. NACLIP, Trident, ResCLIP: 8,
            16; the original has 1, 2, 4, 8, 12, 24.

    Raises:
        ValueError: no step, or a dilation that is no positive number.

    Source: Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020.
    """

    #: A few queries may be refined at a time, without the others.
    per_query = True

    def __init__(self, steps: int = 10, dilations: Sequence[int] = (8, 16)) -> None:
        if not _is_count(steps):
            raise ValueError(
                f"PAMR.steps must be an int >= 1, got {steps!r}; leave PAMR out for none"
            )
        listed = isinstance(dilations, Sequence) and not isinstance(dilations, str)
        if not listed or not dilations or not all(map(_is_count, dilations)):
            raise ValueError(
                "PAMR.dilations must be a list of ints >= 1, distances in pixels such as (8, 16), "
                f"got {dilations!r}"
            )
        self.steps = steps
        self.dilations = tuple(dilations)

    @torch.no_grad()
    def prepare(self, photo: Tensor) -> Callable[[Tensor], Tensor]:
        """What refines scores (K, H, W) of a photo (3, H, W), which is read but once."""
        with without_autocast(photo):
            weights = affinities(at_least_fp32(photo), self.dilations)

        @torch.no_grad()
        def refine(scores: Tensor) -> Tensor:
            with without_autocast(scores):
                full = _aligned(at_least_fp32(scores), weights.shape[-2:])
                return diffuse(full, weights, self.dilations, self.steps)

        return refine


def neighbours(dilations: Sequence[int]) -> tuple[Offset, ...]:
    """Offsets (rows, columns) of the 8 neighbours at each distance, distance by distance."""
    ring = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]
    return tuple((y * d, x * d) for d in dilations for y, x in ring)


def affinities(photo: Tensor, dilations: Sequence[int]) -> Tensor:
    """Weights (8 * dilations, H, W) of every pixel's neighbours, of a photo (C, H, W)."""
    dilations = _within(photo, dilations)
    offsets, margin, centres = neighbours(dilations), max(dilations), len(dilations)
    padded = F.pad(photo, (margin,) * 4, mode="replicate")
    samples = len(offsets) + centres

    def moved() -> Iterator[Tensor]:
        return (_view(padded, offset, margin, photo.shape) for offset in offsets)

    mean = photo * centres
    for neighbour in moved():
        mean += neighbour
    mean /= samples
    variance = (photo - mean).square_() * centres
    for neighbour in moved():
        variance += (neighbour - mean).square_()
    scale = (variance / (samples - 1)).sqrt_().mul_(0.1).add_(1e-8).reciprocal_()
    weights = photo.new_empty(len(offsets), *photo.shape[-2:])
    for weight, neighbour in zip(weights, moved(), strict=True):
        torch.mean((neighbour - photo).abs_().mul_(scale).neg_(), dim=0, out=weight)
    weights -= weights.amax(dim=0)
    weights.exp_()
    return weights.div_(weights.sum(dim=0))


def diffuse(scores: Tensor, weights: Tensor, dilations: Sequence[int], steps: int) -> Tensor:
    """Scores (K, H, W) after ``steps`` weighted means over the neighbours.

    Holds two maps a query: the last scores with a margin, and the next.
    """
    dilations = _within(scores, dilations)
    offsets, margin = neighbours(dilations), max(dilations)
    padded = F.pad(scores, (margin,) * 4, mode="replicate")
    weights, result = weights.to(scores.dtype), torch.empty_like(scores)
    strips = _strips(scores)
    for step in range(steps):
        if step:
            _pad_again(padded, result, margin)
        for rows in strips:
            part = result[:, rows]
            for i, (y, x) in enumerate(offsets):
                neighbour = _view(padded, (y + rows.start, x), margin, part.shape)
                if i == 0:
                    torch.mul(weights[i, rows], neighbour, out=part)
                else:
                    part.addcmul_(weights[i, rows], neighbour)
    return result


def _aligned(scores: Tensor, size: Sequence[int]) -> Tensor:
    """Scores (K, h, w) at another size, the centres of their corners on those of its corners."""
    if scores.shape[-2:] == size:
        return scores
    return F.interpolate(scores[None], size=tuple(size), mode="bilinear", align_corners=True)[0]


def _within(photo: Tensor, dilations: Sequence[int]) -> list[int]:
    """The distances, none longer than the photo is: beyond it lies its edge, however far."""
    longest = max(int(side) for side in photo.shape[-2:])
    return [min(dilation, longest) for dilation in dilations]


def _strips(scores: Tensor) -> list[slice]:
    """Rows that are summed together; all of them where there is no cache to keep them in."""
    queries, height, width = scores.shape
    rows = height if scores.device.type != "cpu" else max(1, STRIP // (queries * width))
    return [slice(start, min(start + rows, height)) for start in range(0, height, rows)]


def _view(padded: Tensor, offset: Offset, margin: int, shape: Sequence[int]) -> Tensor:
    """What lies ``offset`` away from each pixel of the first (h, w) of ``shape``."""
    top, left = margin + offset[0], margin + offset[1]
    return padded[:, top : top + shape[-2], left : left + shape[-1]]


def _pad_again(padded: Tensor, scores: Tensor, margin: int) -> None:
    """Put ``scores`` (K, H, W) between the margins, and replicate the edges into these."""
    height, width = scores.shape[-2:]
    bottom, right = margin + height, margin + width
    padded[:, margin:bottom, margin:right] = scores
    padded[:, :margin] = padded[:, margin : margin + 1]
    padded[:, bottom:] = padded[:, bottom - 1 : bottom]
    padded[:, :, :margin] = padded[:, :, margin : margin + 1]
    padded[:, :, right:] = padded[:, :, right - 1 : right]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
