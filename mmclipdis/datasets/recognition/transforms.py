"""Views and packing of images whose classes are to be told: DCLIP's training (DualCoOp's).

Random numbers come from numpy's global generator, which mmengine seeds in every worker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from mmengine.structures import BaseDataElement
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

META_KEYS = ("img_path", "img_id", "ori_shape", "img_shape", "sample_idx")
GREY = (128, 128, 128)
LEVELS = 10  # 0 to 9; 0 is never drawn


@TRANSFORMS.register_module()
class CutoutRandomColor(BaseTransform):
    """Paint one rectangle of the image in one random colour.

    Its centre is uniform over the image, so that the border may cut it off.

    Required and modified key: ``img``, uint8 (H, W, 3).

    Args:
        ratio: sides of the rectangle over those of the image, in (0, 1].

    Raises:
        ValueError: ``ratio`` is out of range, or the image of another kind.
    """

    def __init__(self, ratio: float = 0.5) -> None:
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio must be in (0, 1], got {ratio}")
        self.ratio = ratio

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Paint on a copy."""
        image = _checked(results["img"]).copy()
        height, width = image.shape[:2]
        place = random_window(height, width, round(self.ratio * height), round(self.ratio * width))
        image[place] = np.random.randint(0, 256, 3)
        results["img"] = image
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(ratio={self.ratio})"


@TRANSFORMS.register_module()
class RandAugmentUDA(BaseTransform):
    """Random operations in the way of UDA and of the package ``randaugment`` 1.0.2.

    Each of ``num_ops`` times one of the 15 :data:`OPERATIONS` is drawn, a level from 1 to 9 and,
    where the operation has two directions, a sign; with probability ``prob`` it is applied.
    torchvision's RandAugment has other operations and one level for all. The package does not run
    on numpy 1.24 or newer.

    Required and modified key: ``img``, uint8 (H, W, 3), BGR.

    Args:
        num_ops: draws.
        prob: probability of each to be applied.

    Raises:
        ValueError: an option is out of range, or the image of another kind.
    """

    def __init__(self, num_ops: int = 2, prob: float = 0.5) -> None:
        if num_ops < 0 or not 0 <= prob <= 1:
            raise ValueError(f"num_ops must be >= 0 and prob in [0, 1], got {num_ops} and {prob}")
        self.num_ops = num_ops
        self.prob = prob

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Apply what is drawn."""
        image = Image.fromarray(np.ascontiguousarray(_checked(results["img"])[..., ::-1]))
        for _ in range(self.num_ops):
            operation = OPERATIONS[NAMES[np.random.randint(len(NAMES))]]
            level = np.random.randint(1, LEVELS)
            sign = 1 - 2 * np.random.randint(2)
            if np.random.random() < self.prob:
                image = operation(image, level, sign)
        results["img"] = np.ascontiguousarray(np.asarray(image)[..., ::-1])
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_ops={self.num_ops}, prob={self.prob})"


@dataclass(frozen=True)
class Operation:
    """One operation on an RGB PIL image; its strength is linear in the level.

    Attributes:
        function: of the image and the strength.
        low: strength at level 0.
        high: strength at level 9.
        signed: whether it has two directions.
    """

    function: Callable[[Image.Image, float], Image.Image]
    low: float = 0.0
    high: float = 0.0
    signed: bool = False

    def __call__(self, image: Image.Image, level: int, sign: int) -> Image.Image:
        """The image at a level from 0 to 9; ``sign`` is 1 or -1."""
        strength = self.low + (self.high - self.low) * level / (LEVELS - 1)
        return self.function(image, sign * strength if self.signed else strength)


def _affine(image: Image.Image, *coefficients: float) -> Image.Image:
    """Take (x, y) from (ax + by + c, dx + ey + f), the nearest pixel; outside is grey."""
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, fillcolor=GREY)


def _cutout(image: Image.Image, side: float) -> Image.Image:
    pixels = np.array(image)
    pixels[random_window(image.height, image.width, round(side), round(side))] = GREY
    return Image.fromarray(pixels)


#: The 15 operations by name. Shears are in pixels a pixel, translations in sides of the image,
#: rotations in degrees around the centre, cutouts in pixels, posterizing in bits kept, solarizing
#: in the value from which on pixels are inverted; of the rest 0 leaves the image as it is.
OPERATIONS: dict[str, Operation] = {
    "Invert": Operation(lambda image, _: ImageOps.invert(image)),
    "Cutout": Operation(_cutout, 0, 20),
    "Sharpness": Operation(lambda i, v: ImageEnhance.Sharpness(i).enhance(1 + v), 0, 0.9, True),
    "AutoContrast": Operation(lambda image, _: ImageOps.autocontrast(image)),
    "Posterize": Operation(lambda image, v: ImageOps.posterize(image, round(v)), 8, 4),
    "ShearX": Operation(lambda image, v: _affine(image, 1, v, 0, 0, 1, 0), 0, 0.3, True),
    "TranslateX": Operation(
        lambda image, v: _affine(image, 1, 0, v * image.width, 0, 1, 0), 0, 150 / 331, True
    ),
    "TranslateY": Operation(
        lambda image, v: _affine(image, 1, 0, 0, 0, 1, v * image.height), 0, 150 / 331, True
    ),
    "ShearY": Operation(lambda image, v: _affine(image, 1, 0, 0, v, 1, 0), 0, 0.3, True),
    "Rotate": Operation(lambda image, v: image.rotate(v, fillcolor=GREY), 0, 30, True),
    "Equalize": Operation(lambda image, _: ImageOps.equalize(image)),
    "Contrast": Operation(lambda i, v: ImageEnhance.Contrast(i).enhance(1 + v), 0, 0.9, True),
    "Color": Operation(lambda i, v: ImageEnhance.Color(i).enhance(1 + v), 0, 0.9, True),
    "Solarize": Operation(lambda image, v: ImageOps.solarize(image, ceil(v)), 256, 0),
    "Brightness": Operation(lambda i, v: ImageEnhance.Brightness(i).enhance(1 + v), 0, 0.9, True),
}
NAMES = tuple(OPERATIONS)


def random_window(height: int, width: int, rows: int, columns: int) -> tuple[slice, slice]:
    """Rows and columns of a rectangle whose centre is uniform over the image, cut at the border.

    Args:
        height: of the image in pixels.
        width: of the image.
        rows: height of the rectangle in pixels.
        columns: width of the rectangle.
    """
    top = np.random.randint(height) - rows // 2
    left = np.random.randint(width) - columns // 2
    return slice(max(top, 0), top + rows), slice(max(left, 0), left + columns)


def _checked(image: NDArray[Any]) -> NDArray[np.uint8]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"the image must be uint8 (H, W, 3), got {image.dtype} {image.shape}; load it without "
            "to_float32 and in colour"
        )
    return image


@TRANSFORMS.register_module()
class PackMultiLabelInputs(BaseTransform):
    """Make the sample of a multi-label model.

    ``inputs``: uint8 (3, H, W), channels as they were loaded (mmcv: BGR). ``data_samples``: a
    ``BaseDataElement`` with ``gt_score`` float32 (N,), 1 present, 0 absent, -1 unknown, if the
    data set has labels, and as meta information the path, the id, the place in the data set and
    the sizes (height, width) of the image.

    Required keys: ``img``. Optional: ``gt_score`` and those of ``META_KEYS``.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Turn arrays into tensors and drop everything else."""
        image = torch.from_numpy(np.ascontiguousarray(results["img"].transpose(2, 0, 1)))
        meta = {key: results[key] for key in META_KEYS if key in results}
        sample = BaseDataElement(metainfo=meta)
        if "gt_score" in results:
            sample.gt_score = torch.from_numpy(np.asarray(results["gt_score"], np.float32))
        return {"inputs": image, "data_samples": sample}
