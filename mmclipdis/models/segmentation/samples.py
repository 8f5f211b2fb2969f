"""From normalised images to data samples with labels: the way that all segmentors here share.

Padding of the batch off -> scores of the windows (the segmentor's own part) -> labels at the size
of the photo, a few classes at a time (:mod:`mmclipdis.models.segmentation.prediction`) -> flip of
test-time augmentation undone -> ``pred_sem_seg``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from mmclipdis.models.segmentation.prediction import (
    LabelRule,
    WindowScores,
    class_probabilities,
    full_size_scores,
    labels_from_probabilities,
    predict_labels,
)
from mmclipdis.models.segmentation.settings import TestSettings
from mmclipdis.models.segmentation.windows import Size
from mmclipdis.utils.finite import check_scores


def predict_samples(
    inputs: Tensor | Sequence[Tensor],
    data_samples: Sequence[SegDataSample] | None,
    score: Callable[[list[Tensor]], Sequence[WindowScores]],
    rule: LabelRule,
    settings: TestSettings,
) -> list[SegDataSample]:
    """Label images.

    Args:
        inputs: Normalised images, (B, 3, H, W) or a list of (3, H, W) of different sizes.
        data_samples: Their meta information (``ori_shape``, padding, flip); without it the result
            has the size of the input.
        score: Window scores of images (3, H, W) without padding, one result an image.
        rule: How these become labels.
        settings: Memory, and whether probabilities are returned.

    Returns:
        One sample an image with ``pred_sem_seg`` (1, H, W) and, only when
        ``settings.return_probs``, class probabilities ``seg_logits`` (C, H, W).

    Raises:
        ValueError: An image without pixels, or scores that are not finite.
    """
    samples = [SegDataSample() for _ in inputs] if data_samples is None else list(data_samples)
    metas = [sample.metainfo for sample in samples]
    images = [image_content(image, meta) for image, meta in zip(inputs, metas, strict=True)]
    for sample, image, scores in zip(samples, images, score(images), strict=True):
        for maps in (scores.maps, scores.overview):
            if maps is not None:
                check_scores(maps, sample.metainfo)
        size, probabilities = photo_size(sample.metainfo, image), None
        if settings.return_probs:
            full = full_size_scores(scores, size, rule.activation)
            probabilities = class_probabilities(full, rule)
            labels = labels_from_probabilities(probabilities, rule)
        else:
            step = settings.queries_at_once(scores, size)
            labels = predict_labels(scores, size, rule, class_chunk=step)
        attach_result(sample, labels, probabilities)
    return samples


def image_content(image: Tensor, meta: Mapping[str, Any]) -> Tensor:
    """Image (C, H, W) without the padding of its batch, so that it cannot influence the result.

    Raises:
        ValueError: nothing is left.
    """
    left, right, top, bottom = meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0)))
    height, width = image.shape[-2:]
    content = image[..., top : height - bottom, left : width - right]
    if 0 in content.shape:
        name = meta.get("img_path", "the image")
        raise ValueError(f"{name}: image has no pixels (size {tuple(content.shape[-2:])})")
    return content


def photo_size(meta: Mapping[str, Any], image: Tensor) -> Size:
    """Size (height, width) of the photo before the test pipeline; of ``image`` if not recorded."""
    shape = meta.get("ori_shape", image.shape[-2:])
    return int(shape[0]), int(shape[1])


def unflip(result: Tensor, meta: Mapping[str, Any]) -> Tensor:
    """Undo the flip of test-time augmentation on (..., H, W).

    Raises:
        ValueError: unknown direction.
    """
    if not meta.get("flip"):
        return result
    axes = {"horizontal": (-1,), "vertical": (-2,), "diagonal": (-1, -2)}
    direction = meta.get("flip_direction")
    if direction not in axes:
        raise ValueError(f"flip_direction must be one of {sorted(axes)}, got {direction!r}")
    return result.flip(axes[direction])


def attach_result(
    sample: SegDataSample, labels: Tensor, scores: Tensor | None = None
) -> SegDataSample:
    """Store labels (H, W), and scores (C, H, W) if given, as mmseg's ``postprocess_result`` does.

    ``pred_sem_seg`` is int64 (1, H, W); ``seg_logits`` only exists when scores were asked for.
    """
    meta = sample.metainfo
    sample.set_data({"pred_sem_seg": PixelData(data=unflip(labels, meta).unsqueeze(0))})
    if scores is not None:
        sample.set_data({"seg_logits": PixelData(data=unflip(scores, meta))})
    return sample
