"""From normalised images to data samples with labels: the way that all segmentors here share.

Padding of the batch off -> scores of the windows (the segmentor's own part) -> labels at the size
of the photo, a few classes at a time (:mod:`mmclipdis.models.segmentation.prediction`), mended by
refiners before and after (:mod:`mmclipdis.models.segmentation.refining`) -> flip of test-time
augmentation undone -> ``pred_sem_seg``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from mmclipdis.clip.towers.regions import resize_nearest
from mmclipdis.models.segmentation.prediction import (
    LabelRule,
    WindowScores,
    class_probabilities,
    full_size_scores,
    labels_from_probabilities,
    predict_labels,
)
from mmclipdis.models.segmentation.refining import (
    Refiner,
    in_chunks,
    refine_labels,
    refine_scores,
    refines_labels,
)
from mmclipdis.models.segmentation.settings import TestSettings
from mmclipdis.models.segmentation.windows import Size
from mmclipdis.utils.finite import check_scores
from mmclipdis.utils.photo_meta import misplaced, resized_photo


def predict_samples(
    inputs: Tensor | Sequence[Tensor],
    data_samples: Sequence[SegDataSample] | None,
    score: Callable[..., Sequence[WindowScores]],
    rule: LabelRule,
    settings: TestSettings,
    refiners: Sequence[Refiner] = (),
    masks: Sequence[Tensor] | None = None,
) -> list[SegDataSample]:
    """Label images.

    Args:
        inputs: Normalised images, (B, 3, H, W) or a list of (3, H, W) of different sizes.
        data_samples: Their meta information (``ori_shape``, padding, flip); without it the result
            has the size of the input.
        score: Window scores of images (3, H, W) without padding, one result an image; with
            ``masks`` it is given them, too.
        rule: How these become labels.
        settings: Memory, and whether probabilities are returned.
        refiners: What mends scores and labels at the size of the photo, in the order it runs.
        masks: Numbers of masks int64 (H, W) of each photo, of any size, flipped as its image is.

    Returns:
        One sample an image with ``pred_sem_seg`` (1, H, W) and, only when
        ``settings.return_probs``, class probabilities ``seg_logits`` (C, H, W), which label
        refiners do not change.

    Raises:
        ValueError: An image without pixels, scores that are not finite, or a refiner without the
            masks that it needs.
    """
    samples = [SegDataSample() for _ in inputs] if data_samples is None else list(data_samples)
    metas = [sample.metainfo for sample in samples]
    images = [image_content(image, meta) for image, meta in zip(inputs, metas, strict=True)]
    found = score(images) if masks is None else score(images, masks)
    mask_maps = [None] * len(images) if masks is None else masks
    for sample, image, scores, mask_map in zip(samples, images, found, mask_maps, strict=True):
        for maps in (scores.maps, scores.overview):
            if maps is not None:
                check_scores(maps, sample.metainfo)
        size = photo_size(sample.metainfo, image)
        labels, probabilities = _labelled(scores, image, size, rule, settings, refiners)
        view_masks = None if mask_map is None else resize_nearest(mask_map, size)
        attach_result(sample, refine_labels(refiners, labels, view_masks), probabilities)
        if settings.return_probs and view_masks is not None and refines_labels(refiners):
            keep_masks(sample, view_masks)
    return samples


def _labelled(
    scores: WindowScores,
    image: Tensor,
    size: Size,
    rule: LabelRule,
    settings: TestSettings,
    refiners: Sequence[Refiner],
) -> tuple[Tensor, Tensor | None]:
    """Labels (H, W) of one view before label refiners, and probabilities if asked for."""
    refine = refine_scores(refiners, image, size)
    if not settings.return_probs and in_chunks(refiners):
        step = settings.queries_at_once(scores, size, refined=refine is not None)
        return predict_labels(scores, size, rule, class_chunk=step, refine=refine), None
    full = full_size_scores(scores, size, rule.activation, refine)
    probabilities = class_probabilities(full, rule)
    labels = labels_from_probabilities(probabilities, rule)
    return labels, probabilities if settings.return_probs else None


def image_content(image: Tensor, meta: Mapping[str, Any]) -> Tensor:
    """Image (C, H, W) without the padding of its batch and of its pipeline.

    Padding thus cannot influence the result, and what is left is the photo, resized.

    Raises:
        ValueError: nothing is left, or a part of the photo is missing.
    """
    left, right, top, bottom = _batch_padding(meta)
    height, width = image.shape[-2:]
    content = image[..., top : height - bottom, left : width - right]
    if 0 in content.shape:
        name = meta.get("img_path", "the image")
        raise ValueError(f"{name}: image has no pixels (size {tuple(content.shape[-2:])})")
    rows, columns = content_slices(content, meta)
    return content[..., rows, columns]


def content_slices(image: Tensor, meta: Mapping[str, Any]) -> tuple[slice, slice]:
    """Rows and columns of an image (C, H, W) that ``Pad`` of its pipeline has not added.

    The photo was resized by ``scale_factor`` (width, height); what is more than that is padding, if
    ``pad_shape`` says that there was some and it is as good as constant: right and below, or, after
    a flip, left and above. (Before ``Resize``, the last pixel of the photo is mixed with it.)

    Raises:
        ValueError: there is less than the photo: something has cut it.
    """
    height, width = image.shape[-2:]
    scale = meta.get("scale_factor")
    if "ori_shape" not in meta or (scale is None and meta.get("pad_shape") is None):
        return slice(height), slice(width)
    size = resized_photo(meta)
    if height < size[0] or width < size[1]:
        raise ValueError(misplaced(meta, (height, width)))
    if meta.get("pad_shape") is None or (height, width) == size:
        return slice(height), slice(width)
    blurred = 0 if tuple(meta["pad_shape"][:2]) == (height, width) else 2
    flipped = str(meta.get("flip_direction")) if meta.get("flip") else ""
    rows = _without_padding(image, -2, size[0], blurred, flipped in ("vertical", "diagonal"))
    columns = _without_padding(image, -1, size[1], blurred, flipped in ("horizontal", "diagonal"))
    return rows, columns


def _without_padding(image: Tensor, axis: int, size: int, blurred: int, flipped: bool) -> slice:
    """The ``size`` places along an axis beside which all is constant; all where it is not."""
    length = image.shape[axis]
    sides = [slice(size), slice(length - size, length)]
    for content in reversed(sides) if flipped else sides[:1]:
        first = content.start == 0 or content.start is None
        begin, end = (size + blurred, length) if first else (0, length - size - blurred)
        padding = image.narrow(axis, min(begin, length), max(end - begin, 0)).flatten(-2)
        if padding.shape[-1] == 0 or bool((padding == padding[..., :1]).all()):
            return content
    return slice(length)


def refuse_padding(meta: Mapping[str, Any]) -> None:
    """Refuse an image that ``Pad`` of its pipeline has padded, for a segmentor that scores it all.

    Raises:
        ValueError: naming the image and the remedy.
    """
    if meta.get("pad_shape") is None or "ori_shape" not in meta:
        return
    left, right, top, bottom = _batch_padding(meta)
    padded = (meta["pad_shape"][0] - top - bottom, meta["pad_shape"][1] - left - right)
    size = resized_photo(meta)
    if padded[0] > size[0] or padded[1] > size[1]:
        raise ValueError(
            f"{meta.get('img_path', 'the image')}: Pad in the test pipeline makes {padded[0]} x "
            f"{padded[1]} pixels of {size[0]} x {size[1]}, and a stock segmentor takes all of them "
            "for the photo; leave Pad out, let the data_preprocessor pad "
            "(test_cfg=dict(size_divisor=32)), or use type='OpenVocabSegmentor' as the model"
        )


def _batch_padding(meta: Mapping[str, Any]) -> Sequence[int]:
    """Pixels (left, right, top, bottom) that mmseg's preprocessor has added."""
    padding: Sequence[int] = meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0)))
    return padding


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


def keep_masks(sample: SegDataSample, masks: Tensor) -> None:
    """Leave the mask map (H, W) of a view with its probabilities, unflipped as they are.

    Whoever makes labels of these, such as test-time augmentation, has it from :func:`kept_masks`.
    """
    sample.set_data({"mask_map": PixelData(data=unflip(masks, sample.metainfo).unsqueeze(0))})


def kept_masks(sample: SegDataSample) -> Tensor | None:
    """The mask map (H, W) of a sample, which has it no more; None if it had none."""
    kept = sample.pop("mask_map", None)
    return None if kept is None else kept.data[0]


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
