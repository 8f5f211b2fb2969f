"""From a photo with panoptic segments to a sample of regions (DeCLIP, section 5.1).

Results of a pipeline carry, besides the paths: ``pil`` (RGB, the photo as it is), ``ori_shape``
(height, width), ``boxes`` (n, 4) x0, y0, x1, y1 in its pixels, ``labels`` and ``isthing`` (n,), and
``masks`` (n, H, W).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from mmengine.structures import BaseDataElement, InstanceData
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mmclipdis.utils.letterbox import letterbox, letterbox_size, normalised_boxes
from mmclipdis.utils.photo_sizes import size_problem
from mmclipdis.utils.pictures import TooManyPixelsError, open_picture, to_rgb


@TRANSFORMS.register_module()
class LoadPanopticRegions(BaseTransform):
    """Load the photo and its segments, as :class:`PanopticRegionsDataset` lists them.

    The box of a thing is the annotated one; that of stuff spans its mask from the first to the
    last row and column (so it is one pixel smaller than the mask, as in the reference).

    Args:
        max_regions: at most this many segments an image, the first ones, are looked at.
        min_area, max_area: boxes with a smaller or larger area in pixels are left out.

    Raises:
        FileNotFoundError: the photo or the PNG is missing.
        ValueError: one of them cannot be read or has not the annotated size, or a segment is not
            in the PNG.
    """

    def __init__(
        self, max_regions: int = 100, min_area: float = 64, max_area: float = 1024**2
    ) -> None:
        self.max_regions = max_regions
        self.min_area = min_area
        self.max_area = max_area

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``pil``, ``ori_shape``, ``boxes``, ``labels``, ``isthing`` and ``masks``."""
        path = results["seg_map_path"]
        image = open_rgb(results["img_path"], "image")
        colours = np.asarray(open_rgb(path, "panoptic PNG"), dtype=np.uint32)
        for name, found in ((results["img_path"], image.size[::-1]), (path, colours.shape[:2])):
            said = (results["height"], results["width"])
            problem = size_problem(str(name), found, said, "its annotation")
            if problem:
                raise ValueError(problem)
        ids = colours @ np.array([1, 256, 65536], dtype=np.uint32)
        segments = results["segments"][: self.max_regions]
        masks = ids == np.array([s["id"] for s in segments], dtype=np.uint32).reshape(-1, 1, 1)
        for segment, mask in zip(segments, masks):
            if not mask.any():
                raise ValueError(f"segment {segment['id']} is not in {path}")
        boxes = np.array([_box(s, m) for s, m in zip(segments, masks)]).reshape(-1, 4)
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        keep = (area >= self.min_area) & (area <= self.max_area)
        labels = np.array([s["label"] for s in segments], dtype=np.int64)
        isthing = np.array([s["isthing"] for s in segments], dtype=bool)
        results.update(pil=image, ori_shape=image.size[::-1])
        results.update(boxes=boxes[keep], masks=masks[keep])
        results.update(labels=labels[keep], isthing=isthing[keep])
        return results


@TRANSFORMS.register_module()
class LetterboxRegions(BaseTransform):
    """Put photo, boxes and masks on a square; adds ``image``, ``unit_boxes``, ``grid_masks``.

    Args:
        size: side S of the square in pixels, a multiple of ``patch_size``.
        patch_size: of the encoder; a mask gets one cell a patch.

    Raises:
        ValueError: the two do not go together.
    """

    def __init__(self, size: int, patch_size: int) -> None:
        if size < 1 or patch_size < 1 or size % patch_size:
            raise ValueError(f"size={size} is no multiple of patch_size={patch_size}")
        self.size = size
        self.patch_size = patch_size

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add (S, S, 3) uint8, (n, 4) float32 in units of S, (n, S/patch, S/patch) bool."""
        photo = results["pil"]
        width, height = photo.size
        results["image"] = letterbox(photo, self.size)
        results["img_shape"] = letterbox_size(width, height, self.size)[::-1]
        results["unit_boxes"] = normalised_boxes(results["boxes"], width, height)
        results["grid_masks"] = letterbox_masks(results["masks"], self.size // self.patch_size)
        return results


@TRANSFORMS.register_module()
class CropRegions(BaseTransform):
    """Cut the regions out of the photo, for CLIP's own embedding of each; adds ``crops``.

    Args:
        size: side R in pixels of a crop after its (centred) letterboxing: CLIP's native size.
        thing_scale: boxes of things grow by this factor about their centre, and end at the border.
    """

    def __init__(self, size: int = 224, thing_scale: float = 1.5) -> None:
        self.size = size
        self.thing_scale = thing_scale

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``crops`` (n, R, R, 3) uint8."""
        photo, boxes = results["pil"], results["boxes"]
        factor = np.where(results["isthing"], self.thing_scale, 1.0)[:, None]
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        half = (boxes[:, 2:] - boxes[:, :2]) / 2 * factor
        corners = np.concatenate([centre - half, centre + half], axis=1)
        corners = np.clip(corners, 0, np.array([*photo.size, *photo.size]))
        crops = [
            letterbox(photo.crop([round(float(x)) for x in c]), self.size, "centre")
            for c in corners
        ]
        shape = (-1, self.size, self.size, 3)
        results["crops"] = np.array(crops, dtype=np.uint8).reshape(shape)
        return results


@TRANSFORMS.register_module()
class PackRegions(BaseTransform):
    """Make the sample: ``inputs`` of the model and ``data_samples``.

    ``inputs``: ``image`` (3, S, S) uint8 RGB, ``boxes`` (n, 4) float32 x0, y0, x1, y1 in units of
    S, and after :class:`CropRegions` ``crops`` (n, 3, R, R) uint8. ``data_samples``: a
    ``BaseDataElement`` with ``gt_regions`` (``labels`` (n,), ``masks`` (n, h, w) bool) and the
    meta information ``img_path``, ``img_id``, ``ori_shape`` and ``img_shape`` (height, width of the
    photo, and of its part of the square).
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pack what the transforms before it added."""
        inputs = {
            "image": _channels_first(results["image"]),
            "boxes": torch.from_numpy(results["unit_boxes"]),
        }
        if "crops" in results:
            inputs["crops"] = _channels_first(results["crops"])
        meta = {key: results[key] for key in ("img_path", "img_id", "ori_shape", "img_shape")}
        sample = BaseDataElement(metainfo=meta)
        sample.gt_regions = InstanceData(
            labels=torch.from_numpy(results["labels"]), masks=results["grid_masks"]
        )
        return {"inputs": inputs, "data_samples": sample}


def open_rgb(path: str, what: str) -> Image.Image:
    """The image at ``path`` as RGB, without turning it as EXIF says (annotations do not either).

    Raises:
        FileNotFoundError: there is none.
        ValueError: it cannot be read as an image, or is above the limit of pixels.
    """
    try:
        with open_picture(path) as file:
            return to_rgb(file, path)
    except TooManyPixelsError:
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no {what} at {path}") from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # permissions or a failing disk; Pillow's own errors have no errno
        raise ValueError(f"cannot read {path} as an image; replace or remove it") from error


def letterbox_masks(masks: NDArray[np.bool_], side: int) -> Tensor:
    """Masks (n, H, W) on a corner letterbox of ``side`` cells: (n, side, side) bool.

    Bicubic without antialiasing, and every cell above 0 belongs to the mask, as in the reference:
    antialiasing (torchvision's default) would more than double the cells of a small object.
    """
    height, width = masks.shape[1:]
    out_width, out_height = letterbox_size(width, height, side)
    square = torch.zeros(len(masks), side, side, dtype=torch.bool)
    if len(masks):
        values = torch.from_numpy(masks).float()[None]
        small = F.interpolate(values, (out_height, out_width), mode="bicubic", antialias=False)
        square[:, :out_height, :out_width] = small[0] > 0
    return square


def _box(segment: dict[str, Any], mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 of a segment in pixels."""
    if segment["isthing"]:
        left, top, width, height = segment["bbox"]
        return left, top, left + width, top + height
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return columns[0], rows[0], columns[-1], rows[-1]


def _channels_first(pixels: NDArray[np.uint8]) -> Tensor:
    """(..., H, W, 3) to (..., 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, -3)))
