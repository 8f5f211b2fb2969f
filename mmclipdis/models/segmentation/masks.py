"""Masks of a photo, from anywhere: what reads them asks here for one map a photo.

A map gives every pixel the number of its mask; its smallest number means "in no mask"
(training_free_2 spec 4.1). A source is a function of the photo, uint8 RGB ``(H, W, 3)`` to integers
``(H, W)``, or has ``load(img_path)`` and reads a file
(:class:`~mmclipdis.models.segmentation.mask_folder.MaskFolder`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmclipdis.clip.towers.regions import OUTSIDE
from mmclipdis.models.segmentation.samples import image_content, photo_size, unflip
from mmclipdis.models.segmentation.windows import Size

#: What a message says to who has none.
REMEDY = (
    "give the model masks=dict(type='MaskFolder', root=...) with a file a photo, "
    "masks=dict(type='MeanShiftMasks'), or a function of the photo"
)


@MODELS.register_module()
class MaskFunction:
    """A function of the photo as a source that a config can name.

    Args:
        function: ``'package.module:name'``, or the function (or module) itself. It gets the photo
            as the segmentor does, resized by the test pipeline: uint8 RGB ``(H, W, 3)``. It gives
            integers ``(H, W)``, an array or a tensor. A module is no part of the model: it is
            neither moved to a device with it nor in its checkpoints.

    Raises:
        ValueError: ``function`` is no such text and nothing that can be called.
        ImportError: there is no such module, or no such name in it.
    """

    def __init__(self, function: str | Callable[[np.ndarray], Any]) -> None:
        self.function = _imported(function) if isinstance(function, str) else function
        if not callable(self.function):
            raise ValueError(
                f"masks.function={function!r} cannot be called: give a function of the photo or "
                "its name, 'package.module:name'"
            )

    def __call__(self, photo: np.ndarray) -> Any:
        """What the function gives."""
        return self.function(photo)


def _imported(text: str) -> Any:
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise ValueError(
            f"masks.function={text!r} names no function: write 'package.module:name', such as "
            "'my_package.my_masks:masks_of'"
        )
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"masks.function={text!r}: {' '.join(str(error).split())}; install what it is in, or "
            "put its folder on PYTHONPATH"
        ) from error


def build_masks(masks: Any) -> Any:
    """The source that a config, a function or a source stands for; None stays None.

    Raises:
        ValueError: it is none of these.
    """
    named = isinstance(masks, Mapping) and "type" in masks
    source = MODELS.build(dict(masks)) if named else masks
    if source is None or (hasattr(source, "load") and not isinstance(source, nn.Module)):
        return source
    if not callable(source) or isinstance(source, type):
        given = " ".join(repr(masks).split())[:80]
        raise ValueError(f"masks={given} is no source of masks: {REMEDY}")
    return MaskFunction(source) if isinstance(source, nn.Module) else source


def mask_maps(
    masks: Any,
    inputs: Tensor | Sequence[Tensor],
    metas: Sequence[Mapping[str, Any]],
    preprocessor: Any,
) -> list[Tensor]:
    """A map a photo, on the device of its image and flipped as that is.

    Args:
        masks: The source, or a config of it.
        inputs: Normalised images (3, H, W), with the padding that ``metas`` tell of.
        metas: Their meta information.
        preprocessor: What has normalised them; its mean and std are taken back for a function.

    Returns:
        int64 (H, W), numbers below 10,000; of the size that the source gave, which has the aspect
        of the photo.

    Raises:
        FileNotFoundError, ValueError: there are no masks of a photo, or they are of another one.
    """
    source, maps = build_masks(masks), []
    for image, meta in zip(inputs, metas, strict=True):
        content = image_content(image, meta)
        if hasattr(source, "load"):
            name, found = source.load(meta.get("img_path"))
            size = photo_size(meta, content)
        else:
            name = f"the masks of {meta.get('img_path') or 'the photo'}"
            photo = photo_of(unflip(content, meta), preprocessor, meta)
            found, size = source(photo), (photo.shape[0], photo.shape[1])
        map_ = checked_map(found, name, size)
        maps.append(unflip(map_.to(image.device), meta))  # which flips what is not flipped
    return maps


def photo_of(image: Tensor, preprocessor: Any, meta: Mapping[str, Any]) -> np.ndarray:
    """The photo uint8 RGB (H, W, 3) that a normalised image (3, H, W) was made of.

    Raises:
        ValueError: what comes out are no colours: something else has normalised the image.
    """
    values = image.detach().to(torch.promote_types(image.dtype, torch.float32))
    if getattr(preprocessor, "_enable_normalize", False):
        values = values * preprocessor.std.to(values) + preprocessor.mean.to(values)
    if not (values.min() > -1 and values.max() < 256):
        raise ValueError(
            f"{meta.get('img_path') or 'the photo'}: masks are made of the photo, whose colours "
            "must be 0..255 when the mean and std of the data_preprocessor are taken back, but are "
            f"{float(values.min()):.4g}..{float(values.max()):.4g}; let the data_preprocessor "
            "normalise, and no step of the pipeline"
        )
    colours = values.round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(colours.permute(1, 2, 0).cpu().numpy())


def checked_map(found: Any, name: str, photo: Size) -> Tensor:
    """A map as int64 (H, W), numbers below 10,000 in the same order.

    Args:
        found: What a source gave.
        name: What it is called in messages, such as ``'mask file a.npz'``.
        photo: (height, width) of the photo.

    Raises:
        ValueError: it holds no integers, has not two axes, no pixels or too many masks, or is of a
            photo with another aspect.
    """
    if not isinstance(found, (np.ndarray, Tensor)):
        raise ValueError(
            f"{name}: got {type(found).__name__}, no array; give integers (H, W), the number of "
            "the mask of each pixel"
        )
    if not _is_whole(found):
        raise ValueError(
            f"{name}: numbers of masks are integers, found {found.dtype}; save them as such"
        )
    if found.ndim != 2 or 0 in found.shape:
        raise ValueError(
            f"{name}: a map of masks has two axes (H, W) and pixels, found {tuple(found.shape)}"
        )
    size = (int(found.shape[0]), int(found.shape[1]))
    if not _same_aspect(size, photo):
        raise ValueError(
            f"{name} has {size[0]} x {size[1]} pixels, the photo {photo[0]} x {photo[1]} (height x "
            "width): of another photo, or turned; make the masks of this one"
        )
    return _below_outside(found, name)


def _is_whole(found: np.ndarray | Tensor) -> bool:
    if isinstance(found, Tensor):
        return not (found.is_floating_point() or found.is_complex() or found.is_quantized)
    return found.dtype.kind in "iub"


def _below_outside(found: np.ndarray | Tensor, name: str) -> Tensor:
    """int64; numbered anew, in their order, where numbers are as large as those of regions."""
    values = found.detach().to(torch.int64) if isinstance(found, Tensor) else found
    if int(values.max()) < OUTSIDE:
        whole = values if isinstance(values, Tensor) else torch.from_numpy(values.astype(np.int64))
        return whole
    array = values.cpu().numpy() if isinstance(values, Tensor) else values
    labels, places = np.unique(array, return_inverse=True)
    if len(labels) > OUTSIDE:
        raise ValueError(
            f"{name}: {len(labels):,} masks, more than {OUTSIDE:,}; leave out the smallest"
        )
    return torch.from_numpy(places.reshape(array.shape).astype(np.int64))


def _same_aspect(size: Size, photo: Size) -> bool:
    """Whether one is the other resized, both sides rounded alike, whichever way."""
    difference = abs(size[0] * photo[1] - size[1] * photo[0])
    return difference == 0 or difference < max(*size, *photo)
