"""Loading that names the file when it cannot be read."""

from __future__ import annotations

import importlib
import struct
from typing import Any

import cv2
import mmcv
import mmengine.fileio as fileio
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.registry import TRANSFORMS

from mmclipdis.compat.optional import HAS_MMDET, HAS_MMSEG
from mmclipdis.utils.photo_sizes import size_problem
from mmclipdis.utils.pictures import TooManyPixelsError, check_pixels

#: What OpenCV, mmcv and Pillow raise for a broken file; Pillow's OSErrors have no ``errno``.
BROKEN = (
    *(cv2.error, AssertionError, OSError, SyntaxError, ValueError),
    *(EOFError, LookupError, ArithmeticError, struct.error),
)


@TRANSFORMS.register_module()
class LoadReadableImage(LoadImageFromFile):
    """``LoadImageFromFile`` with one clear error for a broken, empty or huge image.

    The original dies in OpenCV or in an assertion, without the name for an empty file, and decodes
    pictures of up to 2^30 pixels.

    Args:
        max_pixels: Most pixels of a picture, by the head of its file; None is the limit of all
            loaders, ``$MMCLIPDIS_MAX_PIXELS`` or 100 million.
        args, kwargs: Those of ``LoadImageFromFile``.
    """

    def __init__(self, *args: Any, max_pixels: float | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.max_pixels = max_pixels

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Load ``results['img_path']`` as BGR uint8 (H, W, 3).

        Raises:
            FileNotFoundError: there is no such file.
            OSError: the system does not give the file: permissions, a failing disk.
            ValueError: the file is no image, an image without pixels, one of more than
                ``max_pixels``, or of another size than the annotation says (``height``, ``width``):
                turned by its EXIF tag, for instance.
        """
        path = results["img_path"]
        try:
            image = self._decode(path)
        except TooManyPixelsError:
            raise
        except (*BROKEN, FileNotFoundError) as error:
            if self.ignore_empty:
                return None
            if isinstance(error, FileNotFoundError):
                raise FileNotFoundError(f"no image at {path}") from error
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ValueError(f"cannot read {path} as an image; replace or remove it") from error
        if 0 in image.shape:
            raise ValueError(f"{path} is an image without pixels; replace or remove it")
        results["img"] = image.astype(np.float32) if self.to_float32 else image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        if {"height", "width"} <= results.keys():
            said = (results["height"], results["width"])
            if problem := size_problem(str(path), image.shape[:2], said, "its annotation"):
                raise ValueError(problem)
        return results

    def _decode(self, path: str) -> np.ndarray:
        """As mmcv does, but for the look at the head."""
        if self.file_client_args is not None:  # mmcv's old name of backend_args
            content = fileio.FileClient.infer_client(self.file_client_args, path).get(path)
        else:
            content = fileio.get(path, backend_args=self.backend_args)
        check_pixels(bytes(content), self.max_pixels, name=path)
        image = mmcv.imfrombytes(content, flag=self.color_type, backend=self.imdecode_backend)
        if image is None:  # OpenCV's word for a broken file
            raise ValueError("no image")
        return np.asarray(image)


# Inferencers and tools of mmseg and mmdet look for a step of this very name, so configs say it; in
# these two scopes it is our loader, also for the photos that the inferencers are given. The
# pictures are the same to the bit.
for _installed, _package in ((HAS_MMSEG, "mmseg"), (HAS_MMDET, "mmdet")):
    if _installed:
        importlib.import_module(f"{_package}.registry").TRANSFORMS.register_module(
            name=["LoadImageFromFile", "LoadReadableImage"], module=LoadReadableImage
        )
if HAS_MMDET:  # analyze_results.py asks whether a step is this very class
    _asking: Any = importlib.import_module("mmdet.datasets.utils")
    _asking.LoadImageFromFile = LoadReadableImage
