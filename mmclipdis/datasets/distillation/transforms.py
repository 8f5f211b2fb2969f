"""Loading, views and packing of the images that a distillation trains on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from mmengine.structures import BaseDataElement
from numpy.typing import NDArray
from torch import Tensor

from mmclipdis.utils.letterbox import letterbox, letterbox_size
from mmclipdis.utils.pictures import TooManyPixelsError, open_picture, to_rgb

META_KEYS = ("img_path", "ori_shape", "img_shape", "grid")


@TRANSFORMS.register_module()
class LoadPILImage(BaseTransform):
    """Load ``img_path`` as an RGB PIL image; what cannot be used ends the pipeline with None.

    The image is what Pillow's ``convert("RGB")`` makes of the file: the EXIF orientation is not
    applied (as in the released code), transparency is dropped, of several frames the first counts.

    Required keys: ``img_path``. Added keys: ``pil`` and ``ori_shape`` (height, width); or, with
    None returned, ``unreadable``: why, for the data set's warning.

    Args:
        min_side: Images with a side below so many pixels are not used.
    """

    def __init__(self, min_side: int = 10) -> None:
        self.min_side = min_side

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Load; None when the file is missing, unreadable, too small or too large."""
        try:
            with open_picture(results["img_path"]) as file:
                image = to_rgb(file, results["img_path"])
        except MemoryError:
            raise
        except TooManyPixelsError as error:
            results["unreadable"] = str(error)
            return None
        except Exception as error:  # Pillow's decoders raise whatever broken bytes lead them to
            reason = error.__cause__ or error  # Pillow's own word
            results["unreadable"] = f"{type(reason).__name__}: {reason}"
            return None
        if min(image.size) < self.min_side:
            results["unreadable"] = "{}x{} pixels".format(*image.size)
            return None
        results["pil"] = image
        results["ori_shape"] = image.size[::-1]
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(min_side={self.min_side})"


@TRANSFORMS.register_module()
class DistillViews(BaseTransform):
    """The whole image for the student and for the teachers that see all of it (proxies).

    Each is scaled until its longest side fits and padded right and below with black. A proxy's
    grid has as many tokens as the student's when side / patch size agree (560/16 and 490/14).

    Required keys: ``pil``. Added keys: ``image`` uint8 (3, size, size), RGB; ``proxies``, a dict
    from side to uint8 (3, side, side); ``img_shape``, (height, width) of the student's content.

    Args:
        size: Side of the student's image in pixels.
        proxy_sizes: Sides of the proxies' images in pixels; () makes none.

    Raises:
        ValueError: A side is below 1.
    """

    def __init__(self, size: int = 560, proxy_sizes: Sequence[int] = (490,)) -> None:
        if min((size, *proxy_sizes)) < 1:
            raise ValueError(f"size and proxy_sizes must be >= 1, got {size} and {proxy_sizes}.")
        self.size = size
        self.proxy_sizes = tuple(proxy_sizes)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``image``, ``proxies`` and ``img_shape``."""
        views = {
            side: letterbox(results["pil"], side).transpose(2, 0, 1)
            for side in {self.size, *self.proxy_sizes}
        }
        results["image"] = views[self.size]
        results["proxies"] = {side: views[side] for side in self.proxy_sizes}
        width, height = results["pil"].size
        results["img_shape"] = letterbox_size(width, height, self.size)[::-1]
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size}, proxy_sizes={self.proxy_sizes})"


@TRANSFORMS.register_module()
class PackDistillInputs(BaseTransform):
    """Make the sample of :class:`DistillViews` and :class:`GridCrops`.

    ``inputs``: ``image`` uint8 (3, S, S), ``crops`` uint8 (n, 3, R, R), ``boxes`` float32 (n, 4)
    normalised x0, y0, x1, y1, ``proxies`` {side: uint8 (3, side, side)}. ``data_samples``: a
    ``BaseDataElement`` whose meta information is the path, the sizes and the grid of the image.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Turn arrays into tensors and drop everything else."""
        inputs: dict[str, Any] = {key: _tensor(results[key]) for key in ("image", "crops", "boxes")}
        inputs["proxies"] = {side: _tensor(view) for side, view in results["proxies"].items()}
        meta = {key: results[key] for key in META_KEYS if key in results}
        return {"inputs": inputs, "data_samples": BaseDataElement(metainfo=meta)}


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
